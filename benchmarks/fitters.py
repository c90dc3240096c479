"""Each fitter from moments beside scikit-learn or SciPy on the rows themselves.

Both are given the same rows, made at random with a falling spectrum, and choose hyperparameters
from the same candidates by the same four folds. Ours reads float32 rows once, in chunks; theirs
has them all, in float64. The careful user of a library is meant: what candidates can share is made
once. Each runs in a process of its own; its peak is what resident memory grew by. Asked for: a
peak that does not grow with the rows. Left out are identity and pad/truncate, which learn nothing;
mlp, as no library trains the same network from the same weights; architecture_aware and the maps
of experts, which between two dense models of which nothing else is known are residual or ridge.

    python -m benchmarks.fitters

Shapes: n rows, ds source width, dt target width, p points to predict, c candidates.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge

from alignment.fitted import Fitter
from alignment.fitters import FITTERS
from alignment.fitters.bottleneck import Bottleneck
from alignment.fitters.multi_scale import MultiScale
from alignment.fitters.pca import Pca
from alignment.fitters.reduced_rank import ReducedRank
from alignment.fitters.relative import Relative
from alignment.fitters.residual import Residual
from alignment.fitters.ridge import Ridge
from alignment.maps import Linear
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows, Sample
from alignment.spectrum import counts
from benchmarks.record import record

FOLDS = 4
CHUNK_ROWS = 2000
SAMPLED_ROWS = 2048  # in all, for the fitters that need some
NOISE = 0.1
MIB = 2**20

Rows = NDArray[np.float64]
Predictions = Iterator[Rows]  # of the points, for each candidate


@dataclass(frozen=True)
class Size:
    """What is fitted."""

    source_width: int
    target_width: int
    rows: int


SIZES = (Size(576, 640, 20_000), Size(576, 640, 40_000))


@dataclass(frozen=True)
class Found:
    """What one side answers, and what it took."""

    matrix: Rows  # [dt, ds]
    held_out_r2: float
    chosen: dict[str, float]
    seconds: dict[str, float]
    peak_mib: float


def main() -> None:
    """Measure and record."""
    asked = {"peak memory from moments": "independent of the number of rows"}
    record("fitters", {"asked": asked, "folds": FOLDS, "sizes": measured(SIZES)})


def measured(sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """Every fitter that has a counterpart, at every size."""
    found = []
    for size in sizes:
        fitters = {}
        for name in COUNTERPARTS:
            fitters[name] = _compared(_alone(_ours, name, size), _alone(_theirs, name, size))
            print(size, name, fitters[name], file=sys.stderr)
        found.append({**vars(size), "fitters": fitters})
    return found


def _alone(measure: Callable[[str, Size], Found], name: str, size: Size) -> Found:
    """In a new process, for its memory to be its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure, name, size).result()


def _compared(ours: Found, theirs: Found) -> dict[str, Any]:
    difference = float(np.abs(ours.matrix - theirs.matrix).max())
    return {
        "largest_difference": difference,
        "largest_difference_over_largest_entry": difference / float(np.abs(theirs.matrix).max()),
        "times_faster": sum(theirs.seconds.values()) / sum(ours.seconds.values()),
        **{
            side: {
                "seconds": of.seconds,
                "peak_mib": round(of.peak_mib, 1),
                "held_out_r2": of.held_out_r2,
                "chosen": of.chosen,
            }
            for side, of in (("ours", ours), ("theirs", theirs))
        },
    }


# --- rows


def _chunks(size: Size) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """x [.., ds] with variances 1, 1/2, 1/3 ... and y [.., dt], in float32."""
    ds, dt = size.source_width, size.target_width
    source = torch.linalg.qr(_normal(0, ds, ds)).Q
    target = torch.linalg.qr(_normal(1, dt, dt)).Q[: min(ds, dt)]
    spreads = torch.arange(1.0, ds + 1) ** -0.5
    for start in range(0, size.rows, CHUNK_ROWS):
        hidden = _normal(start + 2, min(CHUNK_ROWS, size.rows - start), ds) * spreads
        signal = hidden[:, : len(target)] * spreads[: len(target)] ** 0.5
        noise = NOISE * _normal(start + 3, len(hidden), dt)
        yield hidden @ source + 1, signal @ target + noise - 1


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _resident(kind: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


# --- both sides


def _ours(name: str, size: Size) -> Found:
    before, reading, at = _resident("VmRSS"), 0.0, 0
    moments, sampled = None, []
    for x, y in _chunks(size):
        start = time.perf_counter()
        ids = (at + np.arange(len(x))) % FOLDS
        part = FoldedMoments.of_rows(x, y, ids, FOLDS)
        moments = part if moments is None else moments + part
        most = SAMPLED_ROWS * len(x) // (size.rows * FOLDS)
        folds = FoldedRows.of_rows(x, y, ids, FOLDS).folds
        sampled.append([fold.thinned(most) for fold in folds])
        reading += time.perf_counter() - start
        at += len(x)
    assert moments is not None, f"no rows in {size}"
    start = time.perf_counter()
    rows = FoldedRows(tuple(Sample.joined(of_fold) for of_fold in zip(*sampled, strict=True)))
    fitted = FITTERS[name]().fit(moments, rows)
    seconds = {"moments": reading, "fit": time.perf_counter() - start}
    assert isinstance(fitted.map, Linear)
    peak = _resident("VmHWM") - before
    return Found(fitted.map.matrix.numpy(), fitted.held_out_r2, fitted.chosen, seconds, peak)


def _theirs(name: str, size: Size) -> Found:
    before = _resident("VmRSS")
    x, y = np.empty((size.rows, size.source_width)), np.empty((size.rows, size.target_width))
    at = 0
    for some_x, some_y in _chunks(size):
        x[at : at + len(some_x)], y[at : at + len(some_x)] = some_x, some_y
        at += len(some_x)
    recipe, predictions = FITTERS[name](), COUNTERPARTS[name]
    names = recipe.chooses
    tried = list(product(*(getattr(recipe, f"{each}s") for each in names)))
    start = time.perf_counter()
    errors, spread = np.zeros(len(tried)), 0.0
    for fold in range(FOLDS):
        held = np.arange(size.rows) % FOLDS == fold
        wanted, training = y[held], y[~held]
        spread += ((wanted - training.mean(0)) ** 2).sum()
        predicted = predictions(x[~held], training, x[held], recipe)
        errors += [((wanted - answer) ** 2).sum() for answer in predicted]
    best = int(errors.argmin())
    chosen = dict(zip(names, tried[best], strict=True))
    points = np.concatenate((np.zeros((1, size.source_width)), np.eye(size.source_width)))
    (answer,) = predictions(x, y, points, recipe.settled(chosen))
    seconds = {"fit": time.perf_counter() - start}
    peak = _resident("VmHWM") - before
    return Found(
        (answer[1:] - answer[0]).T, float(1 - errors[best] / spread), chosen, seconds, peak
    )


# --- counterparts: predictions of points [p, ds] after x [n, ds] and y [n, dt], by candidate


def _penalty(x: Rows, value: float) -> float:
    return value * float(x.var(0).mean()) * len(x)


def _ridge(x: Rows, y: Rows, points: Rows, recipe: Ridge | Residual) -> Predictions:
    for value in recipe.lambdas:
        yield SklearnRidge(alpha=_penalty(x, value)).fit(x, y).predict(points)


def _rotation(x: Rows, y: Rows, scaled: bool) -> Rows:
    """Of centred rows, to [ds, dt]."""
    near_x, near_y = x - x.mean(0), y - y.mean(0)
    ds, dt = x.shape[1], y.shape[1]
    pads = [((0, 0), (0, max(ds, dt) - width)) for width in (ds, dt)]
    found, _ = orthogonal_procrustes(np.pad(near_x, pads[0]), np.pad(near_y, pads[1]))
    rotation = found[:ds, :dt]
    if scaled:
        moved = near_x @ rotation
        rotation = rotation * ((moved * near_y).sum() / (moved**2).sum())
    return rotation


def _procrustes(
    x: Rows, y: Rows, points: Rows, _recipe: Fitter, scaled: bool = True
) -> Predictions:
    yield (points - x.mean(0)) @ _rotation(x, y, scaled) + y.mean(0)


def _relative(x: Rows, y: Rows, points: Rows, recipe: Relative) -> Predictions:
    """Inner products with every row, and NumPy for the target point that has them."""
    near_x, near_y = x - x.mean(0), y - y.mean(0)
    for value in recipe.lambdas:
        penalty = _penalty(y, value) * np.eye(y.shape[1])
        answer = np.linalg.solve(near_y.T @ near_y + penalty, near_y.T @ near_x)
        moved = near_x @ answer.T
        scale = (moved * near_y).sum() / (moved**2).sum()
        yield scale * (points - x.mean(0)) @ answer.T + y.mean(0)


def _residual(x: Rows, y: Rows, points: Rows, recipe: Residual) -> Predictions:
    base = _rotation(x, y, scaled=True)
    for correction in _ridge(x, y - x @ base, points, recipe):
        yield points @ base + correction


def _pca(x: Rows, y: Rows, points: Rows, recipe: Pca) -> Predictions:
    source = _components(x)
    scores, at_points = source.transform(x), source.transform(points)
    for rank in counts(recipe.shares, x.shape[1]):
        yield LinearRegression().fit(scores[:, :rank], y).predict(at_points[:, :rank])


def _bottleneck(x: Rows, y: Rows, points: Rows, recipe: Bottleneck) -> Predictions:
    source, target = _components(x), _components(y)
    scores, at_points, wanted = source.transform(x), source.transform(points), target.transform(y)
    for rank in counts(recipe.shares, min(x.shape[1], y.shape[1])):
        between = LinearRegression().fit(scores[:, :rank], wanted[:, :rank])
        yield between.predict(at_points[:, :rank]) @ target.components_[:rank] + target.mean_


def _multi_scale(x: Rows, y: Rows, points: Rows, recipe: MultiScale) -> Predictions:
    source = _components(x)
    scores, at_points = source.transform(x), source.transform(points)
    shares = source.explained_variance_ratio_
    bands = np.searchsorted(recipe.bands, shares.cumsum() - shares, side="right")
    grids = (recipe.coarse_lambdas, recipe.middle_lambdas, recipe.fine_lambdas)
    parts = []
    for at, lambdas in enumerate(grids):
        inside = bands == at
        band = partial(_of_band, x, y, scores[:, inside], at_points[:, inside])
        parts.append([band(value) for value in lambdas])
    for of_bands in product(*parts):
        yield sum(of_bands, y.mean(0))


def _of_band(x: Rows, y: Rows, scores: Rows, at_points: Rows, value: float) -> Rows:
    if not scores.shape[1]:
        return np.zeros((len(at_points), y.shape[1]))
    model = SklearnRidge(alpha=_penalty(x, value), fit_intercept=False)
    return model.fit(scores, y - y.mean(0)).predict(at_points)


def _reduced_rank(x: Rows, y: Rows, points: Rows, recipe: ReducedRank) -> Predictions:
    """Ridge of scikit-learn and, as it has no reduced rank, NumPy on the values that it fits."""
    for value in recipe.lambdas:
        alpha = _penalty(x, value)
        ridge = SklearnRidge(alpha=alpha).fit(x, y)
        fitted = ridge.predict(x) - y.mean(0)
        _, main = np.linalg.eigh(fitted.T @ fitted + alpha * ridge.coef_ @ ridge.coef_.T)
        moved = ridge.predict(points) - y.mean(0)
        for rank in counts(recipe.shares, min(x.shape[1], y.shape[1])):
            kept = main[:, -rank:]
            yield moved @ kept @ kept.T + y.mean(0)


def _components(rows: Rows) -> PCA:
    solver: Any = "covariance_eigh"  # exact and the fastest; the stubs do not know it
    return PCA(svd_solver=solver).fit(rows)


COUNTERPARTS: dict[str, Callable[..., Predictions]] = {
    "anchor_locked": _procrustes,  # where no anchor is on the wrong side, as here
    "bottleneck": _bottleneck,
    "multi_scale": _multi_scale,
    "orthogonal": partial(_procrustes, scaled=False),
    "pca": _pca,
    "procrustes": _procrustes,
    "reduced_rank": _reduced_rank,
    "relative": _relative,
    "residual": _residual,
    "ridge": _ridge,
}


if __name__ == "__main__":
    main()
