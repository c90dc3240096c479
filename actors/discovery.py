"""Where things are in a family that nobody described: made out from its tree, then proved.

A tree can only be guessed at by shapes and names; what is guessed must come out in numbers, on a
few random tokens, in every block of the live model. What does not is refused, in one line.

Shapes: b texts, t tokens, d width of the residual stream, v vocabulary, k KV heads of width w.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from actors.architectures import Architecture, Layout, Projection, UnknownArchitecture, known
from actors.module_tree import ModuleTree
from actors.site_names import Kind, Site
from actors.sites import Injection, fanning_out, injecting, reading

_TEXTS, _TOKENS = 2, 7


class _Unproved(Exception):
    """What was looked for and not found, or did not add up."""


@contextmanager
def _failing_is(why: str) -> Iterator[None]:
    """What a model raises when it is run in a way that it was not written for."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise _Unproved(f"{why} ({said})") from error


@dataclass(frozen=True, eq=False)
class _Run:
    """What the model itself says of a few random tokens, ids [b, t].

    `stream`: what each block starts from, [b, t, d]. `logits` [b, t, v]. `cache`: keys and values
    of each block, [b, heads, t', w], if it keeps any. `parts`: what each module of the first block
    took and returned, in the order in which they returned it, but for those that were called twice.
    """

    ids: Tensor
    stream: tuple[Tensor, ...]
    logits: Tensor
    cache: list[tuple[Tensor, Tensor]]
    parts: dict[str, tuple[Tensor | None, Tensor]]


def require_decoder(model_type: str) -> None:
    """Refuse, before any weight is fetched or read, a family that can have no place here at all.

    Raises:
        UnknownArchitecture: transformers knows no causal language model of this family.
    """
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnknownArchitecture(
            f"{model_type}: transformers has no causal language model of this family; {known()}"
        )


@torch.inference_mode()
def discover(model: PreTrainedModel) -> Architecture:
    """Make out the module tree of a live model whose family is not in the table.

    Proved are the residual stream, what attention and MLP add to it, the logits, that no token
    sees a later one, and that injections can be fanned out. Keys and values are proved by the
    model's own cache; where they cannot be, they are None.

    Raises:
        UnknownArchitecture: which family, and what was not found or did not add up.
    """
    assert not model.training, "dropout would spoil every proof"
    try:
        outline = _outline(model)
        run = _observe(ModuleTree(model, outline))
        found = _parts_that_add_up(_final_norm(ModuleTree(model, outline), run), run)
        _prove_behaviour(found, run)
    except _Unproved as why:
        raise UnknownArchitecture(
            f"{model.config.model_type} is not in the table, and could not be made out: {why}; "
            f"{known()}"
        ) from None
    return _keys_of(_values_of(found, run), run).architecture


def _outline(model: PreTrainedModel) -> Architecture:
    """Blocks, backbone and head; what is in a block is still to be found."""
    if model.config.is_encoder_decoder:
        raise _Unproved("it has an encoder beside its decoder")
    layers: int | None = getattr(model.config, "num_hidden_layers", None)
    if layers is None:
        raise _Unproved("its configuration does not say how many blocks it has")
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        raise _Unproved(f"one list of {layers} blocks was looked for, {len(outer)} were found")
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise _Unproved("it has no linear head")
    for number, block in enumerate(model.get_submodule(outer[0]).children()):
        if _attention(block) is None:
            raise _Unproved(f"block {number} has no attention")
    return Architecture(
        backbone=_backbone(model, outer[0]),
        blocks=outer[0],
        head=next(path for path, module in model.named_modules() if module is head),
        keys=None,
        values=None,
    )


def _backbone(model: PreTrainedModel, blocks: str) -> str:
    """The innermost module around the blocks that takes token ids."""
    path = blocks.rpartition(".")[0]
    while path and "input_ids" not in signature(model.get_submodule(path).forward).parameters:
        path = path.rpartition(".")[0]
    if not path:
        raise _Unproved("no part of it turns token ids into what its head reads")
    return path


def _attention(block: nn.Module) -> str | None:
    """The outermost module of a block that is called attention."""
    named = (path for path, part in block.named_modules() if "attention" in _kind(part) and path)
    return min(named, key=lambda path: path.count("."), default=None)


def _kind(module: nn.Module) -> str:
    return type(module).__name__.lower()


def _observe(tree: ModuleTree) -> _Run:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(tree.model.config.vocab_size, (_TEXTS, _TOKENS), generator=generator)
    ids = ids.to(tree.model.device)
    parts: dict[str, tuple[Tensor | None, Tensor]] = {}
    calls: Counter[str] = Counter()

    def record(path: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(_module: nn.Module, args: tuple[object, ...], output: object) -> None:
            calls[path] += 1
            taken = args[0] if args and isinstance(args[0], Tensor) else None
            returned = output[0] if isinstance(output, tuple) else output
            if isinstance(returned, Tensor):
                # Some blocks add to it in place.
                parts[path] = (None if taken is None else taken.clone(), returned.clone())

        return hook

    with ExitStack() as hooks, _failing_is("it does not run on a few tokens"):
        for path, part in tree.blocks[0].named_modules():
            hooks.callback(part.register_forward_hook(record(path)).remove)
        out = tree.model(input_ids=ids, output_hidden_states=True, use_cache=True)
    if "" not in parts:
        raise _Unproved("its blocks do not return the residual stream")
    if parts[""][0] is None:
        raise _Unproved("its blocks do not take the residual stream as their first argument")
    parts = {path: each for path, each in parts.items() if calls[path] == 1}
    kept = getattr(out.get("past_key_values"), "layers", [])
    cache = [
        (each.keys, each.values) for each in kept if isinstance(getattr(each, "keys", None), Tensor)
    ]
    return _Run(ids, out.hidden_states, out.logits, cache, parts)


def _final_norm(tree: ModuleTree, run: _Run) -> ModuleTree:
    """With the norm between the last block and the head, and all that goes with it proved."""
    layers = len(tree.blocks)
    sites = [Site("residual", layer) for layer in range(layers)]
    with reading(tree, sites) as found:
        states = tree.states(run.ids)
    if not all(_alike(found[site], run.stream[site.layer + 1]) for site in sites[:-1]):
        raise _Unproved("its blocks do not return the residual stream as the model reports it")
    backbone = tree.architecture.backbone
    norms = (
        f"{backbone}.{name}"
        for name, child in tree.model.get_submodule(backbone).named_children()
        if "norm" in _kind(child) and _alike(child(found[sites[-1]]), states)
    )
    final_norm = next(norms, None)
    if final_norm is None:
        raise _Unproved("no norm stands between its last block and its head")
    if not _alike(tree.logits(states), run.logits):
        raise _Unproved("what its head returns are not its logits: it does more to them")
    return replace(tree, architecture=replace(tree.architecture, final_norm=final_norm))


def _parts_that_add_up(tree: ModuleTree, run: _Run) -> ModuleTree:
    """With the two modules whose outputs make up what every block adds to the stream."""
    for attention, mlp in _candidates(tree, run):
        architecture = replace(tree.architecture, attention=attention, mlp=mlp)
        found = replace(tree, architecture=architecture)
        if _has_paths(found) and _adds_up(found, run):
            return found
    raise _Unproved(
        "what its attention and one other part of a block return does not add up to what the "
        "block adds to the residual stream"
    )


def _candidates(tree: ModuleTree, run: _Run) -> Iterator[tuple[str, str]]:
    """Pairs that add up in the first block: the shallowest first, then the first to return."""
    within = _attention(tree.blocks[0])
    assert within is not None
    stream, returned = run.parts[""]
    assert stream is not None
    whole = run.parts[within][1] if within in run.parts else None
    first: list[str] = []
    second: list[str] = []
    for path, (taken, out) in run.parts.items():
        if not path or out.shape != stream.shape:
            continue
        inside = path == within or path.startswith(f"{within}.")
        # What is made of the attention's output alone, a norm say, is attention's part.
        after = whole is not None and taken is not None and torch.equal(taken, whole)
        (first if inside or after else second).append(path)
    pairs = sorted(product(first, second), key=lambda pair: "".join(pair).count("."))
    for attention, mlp in pairs:
        if _is_sum(returned, stream, run.parts[attention][1], run.parts[mlp][1]):
            yield attention, mlp


def _has_paths(tree: ModuleTree) -> bool:
    """Whether every block has the modules that the first one has."""
    parts = (getattr(tree.architecture, kind) for kind in ("attention", "mlp", "keys", "values"))
    paths = {part.path if isinstance(part, Projection) else part for part in parts if part}
    return all(paths <= {path for path, _ in block.named_modules()} for block in tree.blocks)


def _adds_up(tree: ModuleTree, run: _Run) -> bool:
    kinds: tuple[Kind, ...] = ("attention", "mlp", "residual")
    layers = range(len(tree.blocks))
    with reading(tree, [Site(kind, layer) for kind in kinds for layer in layers]) as found:
        tree.states(run.ids)
    for layer in layers:
        attention, mlp, after = (found[Site(kind, layer)] for kind in kinds)
        if not _is_sum(after, run.stream[layer], attention, mlp):
            return False
    return True


def _prove_behaviour(tree: ModuleTree, run: _Run) -> None:
    other = run.ids.clone()
    other[:, -1] = (other[:, -1] + 1) % tree.model.config.vocab_size
    if not _close(tree.logits(tree.states(other))[:, :-1], run.logits[:, :-1]):
        raise _Unproved("its tokens see what comes after them")
    size = float(run.stream[1].float().square().mean().sqrt())
    vectors = np.random.default_rng(0).standard_normal((2, tree.width)).astype(np.float32)
    for lowest in ("attention.0", "residual.0"):
        sites = (lowest, "residual.0")
        several = [Injection(*each, size) for each in zip(sites, vectors, strict=True)]
        apart = "its blocks do not treat the texts of a batch one by one"
        with _failing_is(apart), fanning_out(tree, several, _TEXTS):
            together = tree.states(run.ids).unflatten(0, (len(several), _TEXTS))
        for fanned, each in zip(together, several, strict=True):
            with injecting(tree, [each] * _TEXTS):
                if not _close(fanned, tree.states(run.ids)):
                    raise _Unproved(apart)


def _values_of(tree: ModuleTree, run: _Run) -> ModuleTree:
    """With the projection that makes what the cache holds as values, if there is one."""
    for path, out in _inside_attention(tree, run):
        module = tree.blocks[0].get_submodule(path)
        heads, beside = divmod(out.shape[-1], tree.head_width)
        if not isinstance(module, nn.Linear | Conv1D) or beside:
            continue
        for layout in ("plain", "stacked", "grouped"):
            kv_heads = heads if layout == "plain" else (heads - tree.heads) // 2
            if kv_heads > 0 and tree.heads % kv_heads == 0:
                values = Projection(path, layout)
                found = replace(tree, architecture=replace(tree.architecture, values=values))
                if _is_kept(found, "values", run):
                    return found
    return tree


def _keys_of(tree: ModuleTree, run: _Run) -> ModuleTree:
    """With what makes the cache's keys but for the rotary embedding, once the values are known."""
    values = tree.architecture.values
    if values is None:
        return tree
    k, w = tree.kv_heads(0), tree.head_width
    shapes: dict[tuple[int, ...], Layout] = {
        (_TEXTS, k, _TOKENS, w): "heads_first",
        (_TEXTS, _TOKENS, k, w): "plain",
        (_TEXTS, _TOKENS, k * w): "plain",
    }
    separate = (
        Projection(path, shapes[out.shape])
        for path, out in _inside_attention(tree, run)
        if out.shape in shapes
    )
    for keys in (values, *separate):
        found = replace(tree, architecture=replace(tree.architecture, keys=keys))
        if _is_kept(found, "keys", run):
            return found
    return tree


def _inside_attention(tree: ModuleTree, run: _Run) -> list[tuple[str, Tensor]]:
    within = _attention(tree.blocks[0])
    return [(path, out) for path, (_, out) in run.parts.items() if path.startswith(f"{within}.")]


def _is_kept(tree: ModuleTree, kind: Kind, run: _Run) -> bool:
    """Whether the site is what the cache holds, in every block, of the tokens that it still has."""
    layers = range(len(tree.blocks))
    if len(run.cache) != len(layers) or not _has_paths(tree):
        return False
    sites = [Site(kind, layer) for layer in layers]
    with reading(tree, sites) as found:
        tree.states(run.ids)
    for site, (keys, values) in zip(sites, run.cache, strict=True):
        own = (keys if kind == "keys" else values).transpose(1, 2)  # [b, t', heads, w]
        points = found[site].unflatten(-1, (-1, tree.head_width))
        rotary = tree.rotary(site.layer) if kind == "keys" else None
        if rotary is not None:
            points = rotary.rotate(points, torch.arange(_TOKENS, device=points.device))
        # Some keep a KV head once for each query head that reads it.
        points = points.repeat_interleave(max(1, own.shape[2] // points.shape[2]), dim=2)
        if not _alike(points[:, -own.shape[1] :], own):
            return False
    return True


def _is_sum(total: Tensor, *terms: Tensor) -> bool:
    """Whether total is the sum of the terms but for rounding, number by number."""
    room = 4 * torch.finfo(total.dtype).eps * sum(term.float().abs() for term in (total, *terms))
    return bool(((total.float() - sum(term.float() for term in terms)).abs() <= room).all())


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether the same was computed, if perhaps in another order."""
    return _near(found, expected, 16 * torch.finfo(expected.dtype).eps)


def _close(found: Tensor, expected: Tensor) -> bool:
    """Whether a whole pass came out the same, with what rounding grows to on the way."""
    return _near(found, expected, torch.finfo(expected.dtype).eps ** 0.5)


def _near(found: Tensor, expected: Tensor, share: float) -> bool:
    if found.shape != expected.shape:
        return False
    found, expected = found.float(), expected.float()
    return bool((found - expected).abs().max() <= share * expected.abs().max())
