"""Geometry of the page's pictures: dots with whiskers, and maps of all layers.

Horizontal places of dots and whiskers are percentages of the width they are drawn on, so that the
same picture reads on a wide and on a narrow screen. Layer maps are drawn in a square of side SIDE.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignment.layers import ROLES, role_layer
from evaluation.cargos import AnyCell
from evaluation.matrix import Grid, LayerSimilarity
from evaluation.retention import Interval
from evaluation.wording import number, titled, words

SIDE = 252
SHADES = 14
CONTROL_LIMIT = 0.2  # a share of native that no control should reach
FARTHEST = (-1.5, 2.5)  # shares beyond these are drawn at the edge, and said in words
TICK_STEPS = (0.25, 0.5, 1.0)
# Kind, label, note, the share itself, and those of single draws.
Share = tuple[str, str, str, Interval | None, tuple[float, ...]]


@dataclass(frozen=True)
class Whisker:
    """Percentages of the width: the dot, and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ForestRow:
    """One measured share of the native effect. `kind` is native, carried, way or control."""

    kind: str
    label: str
    note: str
    share: Interval | None
    whisker: Whisker | None
    strip: tuple[float, ...] = ()


@dataclass(frozen=True)
class Forest:
    """Rows over one axis: `ticks` are (percentage, label); `band` is where controls should stay."""

    rows: tuple[ForestRow, ...]
    zero: float
    one: float
    band: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class RoleMark:
    """A functional role: its layers in both models, and where they cross in the square."""

    name: str
    source_layer: int
    target_layer: int
    x: float
    y: float


@dataclass(frozen=True)
class LayerMap:
    """One measure over all layer pairs: source layers go up, target layers go right.

    `shades` are (shade in [0, 1], path in layer units); `top` is the value of the darkest shade.
    """

    title: str
    source_layers: int
    target_layers: int
    top: float
    largest: float
    shades: tuple[tuple[float, str], ...]
    pairing: str
    roles: tuple[RoleMark, ...]


def forest(cell: AnyCell) -> Forest:
    """The carried effect beside the native one, what else was tried and every control."""
    shares: list[Share] = [
        ("native", "Native", "made in the target itself", Interval(1.0, 1.0, 1.0), ()),
        ("carried", "Carried", f"through {words(cell.way)}", cell.retention, ()),
        *(("way", label, note, share, ()) for label, note, share in cell.tried()),
    ]
    for control in cell.controls:
        strip = () if control.spread is None else control.spread.shares
        note = ""
        if control.spread is not None:
            note = f"{control.spread.count} draws, largest {number(control.spread.largest)}"
        shares.append(("control", titled(control.name), note, control.retention, strip))
    return over_one_axis(shares)


def over_one_axis(shares: Sequence[Share]) -> Forest:
    """A row each, on an axis that has room for all of them, for zero and for one."""
    seen = [0.0, 1.0, -CONTROL_LIMIT]
    for _, _, _, share, strip in shares:
        ends = () if share is None else (share.low, share.value, share.high)
        seen += filter(math.isfinite, (*ends, *strip))
    low = max(min(seen), FARTHEST[0]) - 0.06
    high = min(max(seen), FARTHEST[1]) + 0.06

    def place(share: float) -> float:
        return round(100 * (min(max(share, low), high) - low) / (high - low), 2)

    rows = tuple(
        ForestRow(kind, label, note, share, _whisker(share, place), tuple(map(place, strip)))
        for kind, label, note, share, strip in (_finite(row) for row in shares)
    )
    band = (place(-CONTROL_LIMIT), place(CONTROL_LIMIT))
    return Forest(rows, place(0.0), place(1.0), band, _ticks(low, high, place))


def layer_maps(pair: LayerSimilarity, neighbour_top: float) -> tuple[LayerMap, ...]:
    """The maps of one pair: standardised and raw CKA from 0 to 1, neighbours to a shared top."""
    return (
        _layer_map("CKA, features standardised", pair, pair.cka, 1.0),
        _layer_map("CKA, raw", pair, pair.cka_raw, 1.0),
        _layer_map("Mutual nearest neighbours", pair, pair.mutual_knn, neighbour_top),
    )


def neighbour_top(similarities: tuple[LayerSimilarity, ...]) -> float:
    """The scale that all neighbour maps share: the largest overlap, up to the next tenth."""
    largest = max((_largest(pair.mutual_knn) for pair in similarities), default=0.0)
    return max(0.1, math.ceil(largest * 10) / 10)


def _finite(row: Share) -> Share:
    kind, label, note, share, strip = row
    known = share is not None and all(map(math.isfinite, (share.value, share.low, share.high)))
    return kind, label, note, share if known else None, tuple(filter(math.isfinite, strip))


def _whisker(share: Interval | None, place: Callable[[float], float]) -> Whisker | None:
    if share is None:
        return None
    return Whisker(place(share.value), place(share.low), place(share.high))


def _ticks(
    low: float, high: float, place: Callable[[float], float]
) -> tuple[tuple[float, str], ...]:
    step = next((s for s in TICK_STEPS if (high - low) / s <= 6), TICK_STEPS[-1])
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple((place(n * step), f"{n * step:g}") for n in range(first, last + 1))


def _layer_map(title: str, pair: LayerSimilarity, grid: Grid, top: float) -> LayerMap:
    layers, target_layers = pair.shape
    step_x, step_y = SIDE / target_layers, SIDE / layers
    path = [
        (SIDE * (t + 0.5) / target_layers, SIDE - SIDE * (s + 0.5) / layers)
        for t, s in enumerate(pair.pairing)
    ]
    roles = []
    for role in ROLES:
        source, target = role_layer(role, layers), role_layer(role, target_layers)
        x, y = (target + 0.5) * step_x, SIDE - (source + 0.5) * step_y
        roles.append(RoleMark(words(role), source, target, round(x, 2), round(y, 2)))
    return LayerMap(
        title=title,
        source_layers=layers,
        target_layers=target_layers,
        top=top,
        largest=_largest(grid),
        shades=_shades(grid, top),
        pairing=" ".join(f"{x:.1f},{y:.1f}" for x, y in path),
        roles=tuple(roles),
    )


def _shades(grid: Grid, top: float) -> tuple[tuple[float, str], ...]:
    """One path a shade; neighbours of one shade in a row are one rectangle. NaN is left empty."""
    paths: defaultdict[int, list[str]] = defaultdict(list)
    for source, row in enumerate(grid):
        start = 0
        levels = [_shade(value, top) for value in row]
        for target, shade in enumerate(levels):
            if target + 1 < len(levels) and levels[target + 1] == shade:
                continue
            if shade is not None:
                width = target + 1 - start
                paths[shade].append(f"M{start} {source}h{width}v1h-{width}z")
            start = target + 1
    return tuple((shade / (SHADES - 1), "".join(paths[shade])) for shade in sorted(paths))


def _shade(value: float, top: float) -> int | None:
    if not math.isfinite(value):
        return None
    return round(min(max(value / top, 0.0), 1.0) * (SHADES - 1))


def _largest(grid: Grid) -> float:
    return max((n for row in grid for n in row if math.isfinite(n)), default=math.nan)
