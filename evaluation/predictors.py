"""What tells beforehand how much crosses: the prior, how alike layers are, how well a map fits.

Each is held against measured retention over all pairs of a matrix, by Spearman's rank correlation.
Pairs that share a model are not independent: the bootstrap draws models, and of the pairs those
between drawn ones (Owen 2007, arXiv 0712.1111). Calibrated by a straight line, each predicts the
pairs of a model that the line has not seen.

Shapes: n pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from evaluation.cells import Key
from evaluation.matrix import LayerSimilarity, Matrix
from evaluation.retention import CONFIDENCE, Interval

FEWEST = 4  # pairs between models, that an order of them says anything; models to leave one out
DRAWS = 1000
PRIOR, ALIKE, ABOVE_070, ABOVE_CHANCE, FIT = (
    "prior",
    "mean CKA of the best layer",
    "layers above CKA 0.7",
    "layers above chance",
    "held-out R² of the map",
)


@dataclass(frozen=True)
class Point:
    """One pair: what was known of it by name, and the retention that was measured."""

    source: str
    target: str
    known: Mapping[str, float]
    retention: float


@dataclass(frozen=True)
class Predictor:
    """One thing that was known, over so many pairs: its value in each, and the retention.

    `spearman` is None where one of them is the same everywhere. `error` is how far, on average, a
    line through the pairs of other models is from retention; `naive` is their mean's. They are None
    where fewer than four models took part.
    """

    name: str
    values: tuple[float, ...]
    retentions: tuple[float, ...]
    spearman: Interval | None
    error: float | None
    naive: float | None

    @property
    def pairs(self) -> int:
        return len(self.values)

    @property
    def line(self) -> tuple[float, float]:
        """Slope and start of the least-squares line from what was known to retention."""
        x, y = np.array(self.values), np.array(self.retentions)
        slope = _slope(x, y)
        return slope, float(y.mean() - slope * x.mean())


def predictors(matrix: Matrix) -> dict[str, tuple[Predictor, ...]]:
    """By cargo, everything that was known of four ordered pairs of models or more."""
    found = {}
    for cargo in matrix.cargoes:
        of_it = [*points(matrix, cargo).values()]
        names = dict.fromkeys(name for point in of_it for name in point.known)
        of_cargo = tuple(
            predictor(name, some)
            for name in names
            if _pairs(some := [point for point in of_it if name in point.known]) >= FEWEST
        )
        if of_cargo:
            found[cargo] = of_cargo
    return found


def _pairs(points: Sequence[Point]) -> int:
    """Between how many models in which direction."""
    return len({(point.source, point.target) for point in points})


def predictor(name: str, points: Sequence[Point], draws: int = DRAWS, seed: int = 0) -> Predictor:
    """How one thing that is known of all points goes with retention."""
    values = np.array([point.known[name] for point in points])
    retentions = np.array([point.retention for point in points])
    error, naive = _left_out(points, values, retentions)
    return Predictor(
        name,
        tuple(values.tolist()),
        tuple(retentions.tolist()),
        _clustered(points, values, retentions, draws, seed),
        error,
        naive,
    )


def points(matrix: Matrix, cargo: str) -> dict[Key, Point]:
    """Of every crossing of a cargo whose native effect is real."""
    alike = {(each.source, each.target): each for each in matrix.similarities}
    priors = {(each.source, each.target): each.score for each in matrix.priors}
    found = {}
    for cell in matrix.cells:
        pair = cell.source, cell.target
        if cell.cargo != cargo or cell.retention is None or not cell.is_real:
            continue
        known = {PRIOR: priors[pair]} if pair in priors else {}
        known |= _of_layers(alike[pair]) if pair in alike else {}
        known[FIT] = cell.held_out_r2
        finite = {name: value for name, value in known.items() if np.isfinite(value)}
        found[cell.key] = Point(*pair, finite, cell.retention.value)
    return found


def _of_layers(pair: LayerSimilarity) -> dict[str, float]:
    return {
        ALIKE: pair.alikeness,
        ABOVE_070: pair.coverage_070,
        ABOVE_CHANCE: pair.coverage_null,
    }


def _clustered(
    points: Sequence[Point], x: NDArray[np.float64], y: NDArray[np.float64], draws: int, seed: int
) -> Interval | None:
    whole = _spearman(x, y)
    if whole is None:
        return None
    names = sorted({name for point in points for name in (point.source, point.target)})
    ends = np.array([[names.index(point.source), names.index(point.target)] for point in points])
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        often = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        times = often[ends].prod(1)
        if times.any():  # where all that is drawn is alike, it tells nothing
            found.append(_spearman(np.repeat(x, times), np.repeat(y, times)) or 0.0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, (tail, 1 - tail))
    return Interval(whole, float(low), float(high))


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """None where there is no order."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _left_out(
    points: Sequence[Point], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[float | None, float | None]:
    """Mean distances from retention of a line, and of a mean, that were fitted without the model
    whose pairs they are to predict."""
    names = {name for point in points for name in (point.source, point.target)}
    if len(names) < FEWEST:
        return None, None
    errors, naive = [], []
    for name in sorted(names):
        of_it = np.array([name in (point.source, point.target) for point in points])
        if of_it.all() or not of_it.any():
            continue
        rest = ~of_it
        slope = _slope(x[rest], y[rest])
        line = y[rest].mean() + slope * (x[of_it] - x[rest].mean())
        errors += np.abs(line - y[of_it]).tolist()
        naive += np.abs(y[rest].mean() - y[of_it]).tolist()
    return (float(np.mean(errors)), float(np.mean(naive))) if errors else (None, None)


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Of the least-squares line; none where x does not vary."""
    apart = x - x.mean()
    return float(apart @ y / (apart @ apart)) if np.ptp(x) else 0.0
