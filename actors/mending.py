"""Where the loss of a hand-over is: a part of the carried cells at a time is put right.

The target's own cells take the place of that part. What that gives back of all that is lost says
how much of it is there; parts mend each other, so shares need not add up to one.

Shapes: p tokens that are cached, d width of a site.
"""

from collections.abc import Callable, Mapping

import numpy as np

from actors.cached_text import covering
from actors.hand_over import HandOver
from actors.site_names import Site

THIRDS = ("first", "middle", "last")  # of the layers, and of the tokens
# Of a text: which tokens [p] of a site, of so many layers, are put right.
_Right = Callable[[HandOver, Site, int], np.ndarray]


def cut_otherwise(met: HandOver) -> np.ndarray:
    """Which of the cached tokens [p] are not tokens of the source."""
    return (met.source.spans[covering(met.source.spans, met.spans)] != met.spans).any(1)


def _of_kind(kind: str) -> _Right:
    return lambda met, site, _: np.full(met.cached, site.kind == kind)


def _of_layers(third: int) -> _Right:
    return lambda met, site, layers: np.full(
        met.cached, site.layer * len(THIRDS) // layers == third
    )


def _of_tokens(third: int) -> _Right:
    return lambda met, _, __: np.arange(met.cached) * len(THIRDS) // met.cached == third


_PARTS: dict[str, _Right] = {
    "keys": _of_kind("keys"),
    "values": _of_kind("values"),
    **{f"{name} third of the layers": _of_layers(at) for at, name in enumerate(THIRDS)},
    **{f"{name} third of the tokens": _of_tokens(at) for at, name in enumerate(THIRDS)},
    "tokens that the source cuts otherwise": lambda met, _, __: cut_otherwise(met),
    "tokens that both cut alike": lambda met, _, __: ~cut_otherwise(met),
}
PARTS = tuple(_PARTS)


def right(part: str) -> str:
    """What is called so where that part is put right."""
    return f"{part} put right"


def put_right(met: HandOver, carried: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """What is `mended`, by what it is called: for `actors.hand_over.nats`."""
    return {right(part): cells for part, cells in mended(met, carried).items()}


def mended(met: HandOver, carried: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Cells by site [p, d], by what of them is the target's own."""
    sites = {name: Site.parse(name) for name in carried}
    layers = 1 + max(site.layer for site in sites.values())
    return {
        part: {
            name: np.where(mends(met, sites[name], layers)[:, None], met.native[name], of)
            for name, of in carried.items()
        }
        for part, mends in _PARTS.items()
    }
