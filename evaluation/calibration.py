"""The prior calibrated on what was measured: a straight line from its score to retention."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from evaluation.matrix import Matrix
from evaluation.predictors import PRIOR, Point, points, predictor


@dataclass(frozen=True)
class Calibration:
    """A line through so many `crossings` between so many `models`.

    `error` is how far, on average, the line is from the retention of pairs of a model that it has
    not seen, and `naive` how far the mean of all other pairs is.
    """

    slope: float
    start: float
    crossings: int
    models: int
    error: float
    naive: float

    def expects(self, score: float) -> float:
        """Retention at a score of the prior."""
        return self.start + self.slope * score


def calibration(matrices: Iterable[Matrix], cargo: str) -> Calibration | None:
    """Of all that these measured of a cargo; None where it is too little to leave a model out.

    What several measured between the same models counts once, as the newest has it.
    """
    crossings: dict[tuple[str, str, str], Point] = {}
    for matrix in sorted(matrices, key=lambda of: of.created):
        for (source, target, _, concept), point in points(matrix, cargo).items():
            if PRIOR in point.known:
                one, other = (matrix.model(name).fingerprint for name in (source, target))
                crossings[one, other, concept] = replace(point, source=one, target=other)
    found = [*crossings.values()]
    models = {name for point in found for name in (point.source, point.target)}
    of = predictor(PRIOR, found) if found else None
    if of is None or of.error is None or of.naive is None:
        return None
    slope, start = of.line
    return Calibration(slope, start, len(found), len(models), of.error, of.naive)
