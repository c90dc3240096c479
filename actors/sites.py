"""Named places in a live model: read what passes there, add to it, and leave no hook behind.

Shapes: b rows of a batch, t tokens, d width of a site (of the residual stream; of all keys, or all
values, of a block), n injections, k KV heads of width w, e experts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from actors.architectures import Projection
from actors.module_tree import ModuleTree
from actors.site_names import INJECTED, Site, SiteError


@dataclass(frozen=True, eq=False)
class Injection:
    """Add `strength` times `vector` [d] (float32) at every position of what passes at `site`."""

    site: str
    vector: np.ndarray
    strength: float

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all():
            raise SiteError(f"injection at {self.site}: the vector must be flat and finite")
        if not np.isfinite(self.strength):
            raise SiteError(f"injection at {self.site}: strength {self.strength} is not finite")


def is_live(injection: Injection | None) -> bool:
    """Whether it can change anything at all: strength 0 installs no hook."""
    return injection is not None and injection.strength != 0.0


@contextmanager
def reading(
    tree: ModuleTree,
    sites: Sequence[Site],
    keep: Callable[[Tensor], Tensor] = torch.clone,
    *,
    stop: bool = False,
) -> Iterator[Mapping[Site, Tensor]]:
    """Fill a mapping with `keep` of what each site holds, [b, t, d], in the pass that runs inside.

    `keep` must copy what it returns. With `stop`, the pass ends when all sites have been read, and
    the `with` block with it, as if it were done: nothing above costs anything.
    """
    found: dict[Site, Tensor] = {}
    wanted = dict.fromkeys(sites)
    shape: list[int] = []  # b, t

    def measure(_block: nn.Module, args: tuple[Tensor, ...]) -> None:
        shape[:] = args[0].shape[:2]

    def record(site: Site) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            found[site] = keep(_held(tree, site, output, shape))
            if stop and tree.held.stops_early and len(found) == len(wanted):
                raise _Enough

        return hook

    with ExitStack() as hooks:
        for site in wanted:
            handle = _module(tree, site).register_forward_hook(record(site))
            hooks.callback(handle.remove)
            if site.kind == "router":  # which is not told which token is of which text
                hooks.callback(tree.blocks[site.layer].register_forward_pre_hook(measure).remove)
        try:
            yield found
        except _Enough:
            return


@contextmanager
def injecting(tree: ModuleTree, injections: Sequence[Injection | None]) -> Iterator[None]:
    """Row i of every batch that runs inside takes injections[i]: one for each of the b rows.

    A row with None or strength 0 is left as it is, bit for bit; where there is no other row, no
    hook is installed. What is read at the same site holds the injection. (Where experts take tokens
    of all rows together, another row's injection may still change how a row's numbers are rounded.)
    """
    rows: dict[Site, list[int]] = {}
    for row, injection in enumerate(injections):
        if injection is not None and is_live(injection):
            site = Site.parse(injection.site)
            require_injected(site)
            rows.setdefault(site, []).append(row)
    with ExitStack() as hooks:
        for site, live in rows.items():
            added = torch.zeros(len(injections), site_width(tree, site))
            for row in live:
                added[row] = _scaled(injections[row], added.shape[-1])
            hooks.enter_context(
                _adding(tree, site, added, None if len(live) == len(injections) else live)
            )
        yield


@contextmanager
def fanning_out(tree: ModuleTree, injections: Sequence[Injection], b: int) -> Iterator[None]:
    """Of a batch of b rows inside, let n * b come out: row i * b + j is row j under injections[i].

    The blocks below the lowest injection run once for all. Only for batches without a padding mask.
    """
    lowest = min(Site.parse(injection.site) for injection in injections)
    everywhere = [each for each in injections for _ in range(b)]
    with injecting(tree, everywhere), _widening(tree, lowest, len(injections)):
        yield


@contextmanager
def fanning_out_at(tree: ModuleTree, site: Site, added: Tensor, b: int) -> Iterator[None]:
    """`fanning_out` for vectors [n, d] that are all added at one site, and that gradients reach."""
    require_injected(site)
    rows = added.repeat_interleave(b, dim=0)
    with _adding(tree, site, rows, None), _widening(tree, site, len(added)):
        yield


@contextmanager
def _widening(tree: ModuleTree, lowest: Site, copies: int) -> Iterator[None]:
    """Let every row of a batch come out `copies` times from the site on."""

    def widen_output(_module: nn.Module, _args: object, output: object) -> object:
        return _with_tensor(output, _tensor(output).repeat(copies, 1, 1))

    def widen_input(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        return (args[0].repeat(copies, 1, 1), *args[1:]), kwargs

    def widen_rest(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        # Without padding all rows have the same mask (causal, windowed): the first serves all.
        changed = dict(kwargs)
        if isinstance(mask := kwargs.get("attention_mask"), Tensor):
            changed["attention_mask"] = mask[:1]
        if isinstance(alibi := kwargs.get("alibi"), Tensor):  # a row for each head of each text
            changed["alibi"] = alibi.repeat(copies, *[1] * (alibi.dim() - 1))
        return args, changed

    with ExitStack() as hooks:
        block = _module(tree, Site("residual", lowest.layer))
        if lowest.kind == "residual":
            handle = block.register_forward_hook(widen_output, prepend=True)
        else:
            handle = block.register_forward_pre_hook(widen_input, with_kwargs=True)
        hooks.callback(handle.remove)
        for wide in tree.blocks[lowest.layer + (lowest.kind == "residual") :]:
            handle = wide.register_forward_pre_hook(widen_rest, with_kwargs=True)
            hooks.callback(handle.remove)
        yield


def site_width(tree: ModuleTree, site: Site) -> int:
    """How many numbers a site holds of each token: d."""
    _module(tree, site)  # refuses what there is not
    if site.kind in ("keys", "values"):
        return tree.kv_heads(site.layer) * tree.head_width
    if site.kind == "router":
        return tree.experts
    return tree.width


def require_injected(site: Site) -> None:
    """Raises SiteError where nothing can be added."""
    if site.kind not in INJECTED:
        raise SiteError(f"injection at {site}: a router's decision can only be read")


class _Enough(Exception):
    """All sites have been read."""


def _module(tree: ModuleTree, site: Site) -> nn.Module:
    if not 0 <= site.layer < len(tree.blocks):
        raise SiteError(f"site {site}: this model has layers 0 to {len(tree.blocks) - 1}")
    block = tree.blocks[site.layer]
    if site.kind == "residual":
        return block
    part: Projection | str | None = getattr(tree.architecture, site.kind)
    if part is None:
        raise SiteError(
            f"site {site}: where a block of {tree.model.config.model_type} computes its "
            f"{site.kind} is not known"
        )
    return block.get_submodule(part if isinstance(part, str) else part.path)


def _tensor(output: object) -> Tensor:
    """The tensor that a module returns (attention returns its weights beside it)."""
    tensor = output[0] if isinstance(output, tuple) else output
    assert isinstance(tensor, Tensor)
    return tensor


def _with_tensor(output: object, tensor: Tensor) -> object:
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


def _place(tree: ModuleTree, site: Site, output: Tensor) -> Tensor:
    """The part of a module's output that is the site, as a view: [b, t, d] or [b, t, k, w]."""
    part: Projection | str | None = getattr(tree.architecture, site.kind, None)
    if not isinstance(part, Projection):
        return output
    h, w = tree.heads, tree.head_width
    if part.layout == "plain":
        return output
    if part.layout == "heads_first":
        return output.transpose(1, 2)
    k = tree.kv_heads(site.layer)
    number = ("keys", "values").index(site.kind)
    if part.layout == "grouped":
        return output.unflatten(-1, (k, h // k + 2, w))[..., h // k + number, :]
    start = h + number * k
    return output.unflatten(-1, (h + 2 * k, w))[..., start : start + k, :]


def _held(tree: ModuleTree, site: Site, output: object, shape: Sequence[int]) -> Tensor:
    """What a site holds, [b, t, d], from what its module returned on this rank."""
    if site.kind == "router":
        assert isinstance(output, tuple)
        scores, weights, chosen = output  # of all tokens together
        decision = torch.zeros_like(scores, dtype=torch.float32)
        return decision.scatter(1, chosen, weights.float()).unflatten(0, tuple(shape))
    part = _place(tree, site, _tensor(output)).flatten(2)
    if site.kind not in ("keys", "values"):
        return part
    return tree.held.gather(part, tree.values_projection(site.layer))


def _scaled(injection: Injection | None, width: int) -> Tensor:
    assert injection is not None
    if len(injection.vector) != width:
        raise SiteError(
            f"injection at {injection.site}: the vector has {len(injection.vector)} numbers, "
            f"this model has {width} there"
        )
    return torch.from_numpy(injection.strength * injection.vector.astype(np.float32))


@contextmanager
def _adding(tree: ModuleTree, site: Site, added: Tensor, live: list[int] | None) -> Iterator[None]:
    """Add added[i] to row i of what passes at the site inside; to the rows in `live` only."""

    def hook(_module: nn.Module, _args: object, output: object) -> object:
        changed = _tensor(output).clone()
        if len(changed) != len(added):
            raise SiteError(f"{len(added)} injections for a batch of {len(changed)} rows")
        place = _place(tree, site, changed)  # a view: what is added there is added to `changed`
        own = added[:, None].to(place)
        if site.kind in ("keys", "values"):
            own = tree.held.own(own, tree.values_projection(site.layer))
        shaped = own.view(len(added), 1, *place.shape[2:])
        if live is None:
            place += shaped
        else:
            place[live] += shaped[live]
        return _with_tensor(output, changed)

    handle = _module(tree, site).register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()
