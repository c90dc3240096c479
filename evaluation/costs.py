"""What it takes to carry each cargo: bytes that are kept, and where something is trained how much
the target reads for it, beside what its own takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from evaluation.cells import Cell, TrainedCell
from evaluation.digest import median_of
from evaluation.matrix import Matrix


@dataclass(frozen=True)
class Cost:
    """Medians over the crossings of one cargo and concept: bytes of what is pulled (`size`), and
    tokens that the target reads, with the seconds that takes, for what is carried and for its own.
    None where nothing is trained in the target."""

    cargo: str
    concept: str
    crossings: int
    size: float
    tokens: float | None
    seconds: float | None
    native_tokens: float | None
    native_seconds: float | None


def costs(matrix: Matrix) -> list[Cost]:
    """A line for each cargo and concept, in the order of the page."""
    return [_cost(cargo, concept, cells) for (cargo, concept), cells in matrix.facets.items()]


def _cost(cargo: str, concept: str, cells: Sequence[Cell]) -> Cost:
    trained = [each for each in cells if isinstance(each, TrainedCell)]
    used = [way for each in trained for way in each.ways if way.name == each.way]
    return Cost(
        cargo,
        concept,
        crossings=len(cells),
        size=median(each.map_bytes for each in cells),
        tokens=median_of(each.tokens for each in used),
        seconds=median_of(each.seconds for each in used),
        native_tokens=median_of(each.native_tokens for each in trained),
        native_seconds=median_of(each.native_seconds for each in trained),
    )
