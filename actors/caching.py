"""A model's cache as cells: taken out of a text, and put back for the model to go on from.

The cell of a token at a layer is its key, as it is before any rotary embedding, and its value.

Shapes: t tokens of a text, p of them in a cache, f that are fed after it, d width of all keys (or
values) of a layer, k variants, w width of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from actors.cached_text import Read
from actors.encoding import Encoded, encode
from actors.engine import Engine
from actors.reading import NotFinite
from actors.site_names import Kind, Site
from actors.sites import reading

TOKENS_A_PASS = 4096  # cached ones and fed ones together, of all variants

# Float32 [p, d], for `keys.L` and `values.L` of every layer.
CellsBySite = Mapping[str, np.ndarray] | Mapping[str, Tensor]


class CacheError(ValueError):
    """Cells that a model cannot go on from, or a cache that cannot be used; one line."""


def cell_sites(layers: int) -> tuple[str, ...]:
    """Every site of a cache: the keys of all layers, then the values."""
    kinds: tuple[Kind, ...] = ("keys", "values")
    return tuple(str(Site(kind, layer)) for kind in kinds for layer in range(layers))


@torch.inference_mode()
def read(engine: Engine, fingerprint: str, texts: Sequence[str]) -> list[Read]:
    """Each text by itself, in one pass over all of them; give texts of like length.

    Raises:
        CacheError: a text is longer than the context of the model; nothing is read then.
        NotFinite: a cell holds NaN or Inf.
    """
    encoded = _encoded_whole(engine, texts)
    held = {site: cells.cpu().numpy() for site, cells in cells_of(engine, encoded.ids).items()}
    result = []
    for row, length in enumerate(encoded.lengths):
        cells = {site: of[row, :length] for site, of in held.items()}
        for site, of in cells.items():
            if not np.isfinite(of).all():
                raise NotFinite(f"text {texts[row][:40]!r}, site {site}: cells are not finite")
        result.append(Read(fingerprint, *_tokens(encoded, row), cells))
    return result


def tokens_of(engine: Engine, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids [t] and spans [t, 2] of a text.

    Raises:
        CacheError: the text is longer than the context of the model.
    """
    return _tokens(_encoded_whole(engine, [text]), 0)


def _tokens(encoded: Encoded, row: int) -> tuple[np.ndarray, np.ndarray]:
    length = encoded.lengths[row]
    spans = np.array(encoded.spans[row][:length], dtype=np.int64).reshape(-1, 2)
    return encoded.ids[row, :length].cpu().numpy(), spans


def _encoded_whole(engine: Engine, texts: Sequence[str]) -> Encoded:
    """As `encode`; raises CacheError where a text is longer than the context of the model."""
    encoded = encode(engine, texts)
    for text, spans in zip(texts, encoded.spans, strict=True):
        reached = max(end for _, end in spans)
        if reached < len(text.rstrip()):
            raise CacheError(
                f"a text of {len(text):,} characters is more than the context of "
                f"{engine.context:,} tokens holds; its first {reached:,} characters would fit"
            )
    return encoded


def cells_of(engine: Engine, ids: Tensor) -> dict[str, Tensor]:
    """The cells of token ids [b, t] by site, float32 [b, t, d]."""
    sites = cell_sites(len(engine.blocks))
    with reading(engine, [Site.parse(site) for site in sites]) as found:
        engine.states(ids)
    return {site: found[Site.parse(site)].float() for site in sites}


@dataclass(frozen=True, eq=False)
class Known:
    """What a model knows of tokens that it has not read, or only in its first layers.

    `states` [t, e] are, without any layer, what enters the first block (embeddings, with positions
    where those are learned) for each token and for the one before it (zeros before the first). Else
    the residual stream after so many layers, and `cells` are those of these layers.
    """

    states: np.ndarray
    cells: dict[str, np.ndarray]


@torch.inference_mode()
def know(engine: Engine, ids: np.ndarray, layers: int) -> Known:
    """What the model itself makes of tokens [t] in its first layers; it computes no other."""
    tokens = torch.from_numpy(ids).to(engine.device)[None]
    if layers == 0:
        rows = _entering(engine, tokens)[0].float()
        before = torch.cat((torch.zeros_like(rows[:1]), rows[:-1]))
        return Known(torch.cat((rows, before), dim=1).cpu().numpy(), {})
    state, sites = Site("residual", layers - 1), [Site.parse(of) for of in cell_sites(layers)]
    with reading(engine, [state, *sites], stop=True) as found:
        engine.states(tokens)
    held = {site: of[0].float().cpu().numpy() for site, of in found.items()}
    return Known(held.pop(state), {str(site): of for site, of in held.items()})


@torch.inference_mode()
def reread(engine: Engine, ids: np.ndarray, cells: CellsBySite) -> dict[str, np.ndarray]:
    """Cells of all tokens [t]: those that are given [p, d], and the later ones by the model itself,
    which reads these tokens after them.

    Raises:
        CacheError: as `fill`.
    """
    sites = cell_sites(len(engine.blocks))
    length = _length([cells], sites)
    given = {site: np.asarray(cells[site]) for site in sites}
    if length >= len(ids):
        return given
    fed = torch.from_numpy(ids[length:]).to(engine.device)[None]
    with reading(engine, [Site.parse(site) for site in sites]) as found:
        engine.states_after(fed, fill(engine, [cells]))
    late = {site: found[Site.parse(site)][0].float().cpu().numpy() for site in sites}
    return {site: np.concatenate((given[site], late[site])) for site in sites}


class _Entered(Exception):
    """The first block has been reached."""


def _entering(engine: Engine, tokens: Tensor) -> Tensor:
    """What enters the first block, [b, t, d], of tokens [b, t]."""
    found: list[Tensor] = []

    def take(_block: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0].clone())
        raise _Entered

    handle = engine.blocks[0].register_forward_pre_hook(take)
    try:
        with suppress(_Entered):
            engine.states(tokens)
    finally:
        handle.remove()
    return found[0]


def fill(engine: Engine, variants: Sequence[CellsBySite]) -> DynamicCache:
    """A transformers cache with a row for each variant, as if the model had read p tokens.

    Gradients go back to cells that are tensors.

    Raises:
        CacheError: cells of other layers, widths or lengths than this model has, or not finite.
    """
    cache = DynamicCache(config=engine.model.config)
    for layer, (keys, values) in enumerate(as_cached(engine, variants)):
        cache.update(keys, values, layer)
    return cache


def as_cached(engine: Engine, variants: Sequence[CellsBySite]) -> Iterator[tuple[Tensor, Tensor]]:
    """The keys (rotated) and the values of each layer in turn, as transformers caches them.

    Both are [k, heads, p, w], in the model's type. Raises CacheError as `fill`.
    """
    sites = cell_sites(len(engine.blocks))
    length = _length(variants, sites)
    positions = torch.arange(length, device=engine.device)
    for layer in range(len(engine.blocks)):
        keys, values = (_heads(engine, Site(kind, layer), variants) for kind in ("keys", "values"))
        rotary = engine.rotary(layer)
        keys = keys if rotary is None else rotary.rotate(keys, positions)
        yield keys.transpose(1, 2).contiguous(), values.transpose(1, 2).contiguous()


@torch.inference_mode()
def continuation_nll(
    engine: Engine, fed: np.ndarray, variants: Sequence[CellsBySite], known: int = 1
) -> np.ndarray:
    """Nats per token of `fed` [f] (token ids) after the known ones, each variant cached before.

    The first `known` of `fed`, which follow the cached ones, are read and not judged.

    Returns:
        float64 [k].

    Raises:
        CacheError: as `fill`; or nothing is left to judge.
    """
    if not 1 <= known < len(fed):
        raise CacheError(
            f"of {len(fed)} tokens that are fed, {known} known ones leave none to judge"
        )
    ids = torch.from_numpy(fed).to(engine.device)
    cached = _length(variants, cell_sites(len(engine.blocks)))
    together = max(1, TOKENS_A_PASS * engine.at_once // (cached + len(fed)))
    found: list[float] = []
    for start in range(0, len(variants), together):
        some = variants[start : start + together]
        states = engine.states_after(ids.expand(len(some), -1), fill(engine, some))
        judged = states[:, known - 1 : -1].flatten(0, 1)
        own = engine.log_chances(judged, ids[known:].repeat(len(some)))
        found += (-own.double().view(len(some), -1).mean(1)).tolist()
    return np.array(found)


def importance(engine: Engine, texts: Sequence[tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
    """How much each number of a cell matters to what comes after, float32 [d] by site.

    The root mean square, over the cells of some texts but the first of each, of the gradient of the
    nats of what comes after (the diagonal of the empirical Fisher information, by feature). `texts`
    are token ids [t] and how many of them are cached.

    Raises:
        ShardingError: no gradients go through a model that is held like this.
    """
    squares: dict[str, Tensor] = {}
    count = 0
    for ids, cached in texts:
        tokens = torch.from_numpy(ids).to(engine.device)[None]
        with torch.no_grad():
            own = {site: of[0] for site, of in cells_of(engine, tokens[:, :cached]).items()}
        cells = {site: of.clone().requires_grad_() for site, of in own.items()}
        with engine.held.with_gradients(), torch.enable_grad():
            states = engine.states_after(tokens[:, cached:], fill(engine, [cells]))
            chances = engine.logits(states[0, :-1]).log_softmax(-1)
            said = chances.gather(1, tokens[0, cached + 1 :, None]).sum()
            found = torch.autograd.grad(said, list(cells.values()))
        for site, gradient in zip(cells, found, strict=True):
            squares[site] = squares.get(site, torch.zeros(())) + gradient[1:].square().sum(0)
        count += cached - 1
    return {site: (of / count).sqrt().cpu().numpy() for site, of in squares.items()}


def _length(variants: Sequence[CellsBySite], sites: Sequence[str]) -> int:
    lengths = set()
    for cells in variants:
        if missing := [site for site in sites if site not in cells]:
            raise CacheError(f"the cache has no {missing[0]}; it needs {sites[0]} to {sites[-1]}")
        lengths |= {len(cells[site]) for site in sites}
    if len(lengths) != 1:
        raise CacheError(f"cells of {', '.join(map(str, sorted(lengths)))} tokens side by side")
    return lengths.pop()


def _heads(engine: Engine, site: Site, variants: Sequence[CellsBySite]) -> Tensor:
    """The cells of a site as this rank's cache has them, [k, p, heads, w], in the model's type."""
    width = engine.kv_heads(site.layer) * engine.head_width
    cells = torch.stack([torch.as_tensor(each[str(site)]) for each in variants])
    if cells.shape[-1] != width:
        raise CacheError(f"{site}: cells of width {cells.shape[-1]}, and this model has {width}")
    if not cells.isfinite().all():
        raise CacheError(f"{site}: cells with NaN or Inf")
    held = cells.to(engine.device, engine.model.dtype)
    own = engine.held.own(held, engine.values_projection(site.layer))
    return own.unflatten(2, (-1, engine.head_width)).repeat_interleave(engine.cached_copies, dim=2)
