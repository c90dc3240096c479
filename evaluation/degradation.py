"""Where less is kept: retention by how much is cached, by what is carried, by what is put right."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from evaluation.cargos.kv_cache import CacheCell
from evaluation.drawing import Forest, Share, over_one_axis
from evaluation.matrix import Matrix
from evaluation.retention import Interval
from evaluation.wording import titled


@dataclass(frozen=True)
class Degradation:
    """Shares of one cargo, a row for each value of what they depend on, over one axis.

    A row is drawn at the median over crossings, its whisker spans them all, and each is a stroke.
    """

    cargo: str
    by: str
    forest: Forest


def degradations(matrix: Matrix) -> list[Degradation]:
    """Those of each cargo in its order, where there are several values to set side by side."""
    found = []
    for cargo in matrix.cargoes:
        for by, of in _shares(matrix, cargo).items():
            rows = [_row(value, shares) for value, shares in of.items()]
            if len(rows) > 1:
                found.append(Degradation(cargo, by, over_one_axis(rows)))
    return found


def _shares(matrix: Matrix, cargo: str) -> dict[str, dict[str, list[Interval | None]]]:
    """By what they depend on, and by the value of that; one of each crossing."""
    found: dict[str, dict[str, list[Interval | None]]] = {}
    for cell in (cell for cell in matrix.cells if cell.cargo == cargo):
        of_cell = (
            _of_caches(cell)
            if isinstance(cell, CacheCell)
            else [("what is carried", cell.concept, cell.retention)]
        )
        for by, value, share in of_cell:
            found.setdefault(by, {}).setdefault(value, []).append(share)
    return found


def _of_caches(cell: CacheCell) -> Iterator[tuple[str, str, Interval | None]]:
    for length in cell.lengths:
        yield "length of the context", f"{length.characters:,} characters", length.retention
    for content in cell.contents:
        yield "kind of text", content.name, content.retention
    for loss in cell.losses:
        yield "source of the loss", loss.part, loss.given_back


def _row(value: str, shares: Iterable[Interval | None]) -> Share:
    every = list(shares)
    known = [share.value for share in every if share is not None and math.isfinite(share.value)]
    note = f"{len(known)} of {len(every)} crossings"
    span = Interval(median(known), min(known), max(known)) if known else None
    return "carried", titled(value), note, span, tuple(known)
