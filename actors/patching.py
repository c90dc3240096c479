"""Some tokens of a carried cache computed by the target itself, wherever they are in the text.

At every layer the chosen tokens attend to what is cached of all tokens before them, carried or, of
chosen ones, just computed (selective recomputation, as CacheBlend does, arXiv 2405.16444).

Shapes: t tokens of a text, m of them chosen, d width of a site.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from actors.caching import CacheError, CellsBySite, as_cached, cell_sites
from actors.engine import Engine
from actors.reading import reading
from actors.site_names import Site


class _Patched(DynamicLayer):
    """All tokens of a layer; what comes new takes the place of what was there."""

    def __init__(self, keys: Tensor, values: Tensor, chosen: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self._held, self._chosen = (keys, values), chosen
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_more: Any
    ) -> tuple[Tensor, Tensor]:
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, self._chosen] = new
        return self._held


@torch.inference_mode()
def patch(
    engine: Engine, ids: np.ndarray, cells: CellsBySite, chosen: Sequence[int]
) -> dict[str, np.ndarray]:
    """Cells of all tokens [t], those of the chosen ones computed by the model itself.

    The cost is that of reading as many tokens as are chosen.

    Raises:
        CacheError: as `caching.fill`; or the model has no rotary embedding.
    """
    sites = cell_sites(len(engine.blocks))
    found = {site: np.array(cells[site]) for site in sites}
    if not chosen:
        return found
    if any(engine.rotary(layer) is None for layer in range(len(engine.blocks))):
        raise CacheError("only models with rotary embeddings compute tokens out of their order")
    at = torch.tensor(sorted(chosen), device=engine.device)
    layers: list[Any] = [_Patched(*both, at) for both in as_cached(engine, [found])]
    with reading(engine, [Site.parse(site) for site in sites]) as read:
        engine.states_among(
            torch.from_numpy(ids).to(engine.device)[None, at],
            at[None],
            _masks(engine, at, len(ids)),
            Cache(layers=layers),
        )
    for site, of in found.items():
        of[at.cpu().numpy()] = read[Site.parse(site)][0].float().cpu().numpy()
    return found


def _masks(engine: Engine, at: Tensor, length: int) -> Tensor | dict[str, Tensor]:
    """What each chosen token must not attend to, added to its scores [1, 1, m, t]: by kind of
    layer, where a model has several."""
    config = engine.model.config
    back = at[:, None] - torch.arange(length, device=at.device)
    window: int | None = getattr(config, "sliding_window", None)
    kinds: list[str] = getattr(config, "layer_types", None) or []
    if window is not None and not getattr(config, "use_sliding_window", True):
        window = None

    def mask(allowed: Tensor) -> Tensor:
        least = torch.finfo(engine.model.dtype).min
        return torch.where(allowed, 0.0, least).to(engine.model.dtype)[None, None]

    full = mask(back >= 0)
    if window is None:
        return full if len(set(kinds)) < 2 else dict.fromkeys(kinds, full)
    near = mask((back >= 0) & (back < window))
    if len(set(kinds)) < 2:
        return full if kinds[:1] == ["full_attention"] else near
    return {"full_attention": full, "sliding_attention": near}
