"""What others assert of pairs like these, beside what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.cargos import AnyCell
from evaluation.cargos.kv_cache import CacheCell
from evaluation.expectation import Band, expected
from evaluation.matrix import Matrix
from evaluation.retention import Interval

CHARACTERS_A_TOKEN = 4  # of English, about


@dataclass(frozen=True)
class Asserted:
    """A crossing: the prior of its pair, the band asserted for such a prior, and its retention."""

    source: str
    target: str
    concept: str
    prior: float
    band: Band
    retention: Interval

    @property
    def verdict(self) -> str:
        """Where its interval lies."""
        if self.retention.high < self.band.low:
            return "below"
        return "above" if self.retention.low > self.band.high else "within"


def assertions(matrix: Matrix) -> dict[str, tuple[Asserted, ...]]:
    """By cargo, the crossings with a prior for which anything is asserted, of a native effect that
    is real."""
    priors = {(each.source, each.target): each.score for each in matrix.priors}
    found = {
        cargo: tuple(_asserted([c for c in matrix.cells if c.cargo == cargo], priors))
        for cargo in matrix.cargoes
    }
    return {cargo: some for cargo, some in found.items() if some}


def _asserted(cells: list[AnyCell], priors: dict[tuple[str, str], float]) -> Iterator[Asserted]:
    for cell in cells:
        score = priors.get((cell.source, cell.target))
        if score is None or cell.retention is None or not cell.is_real:
            continue
        characters = cell.cached_characters if isinstance(cell, CacheCell) else 0
        band = expected(cell.cargo, score, max(1, characters // CHARACTERS_A_TOKEN))
        if band is not None:
            yield Asserted(cell.source, cell.target, cell.concept, score, band, cell.retention)
