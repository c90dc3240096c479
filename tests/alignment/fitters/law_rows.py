"""Rows of every kind that the laws of fitters are tried on, and fits to them.

Shapes: n rows, ds source width, dt target width.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignment.fitted import Fitted, Fitter
from alignment.fitters import FITTERS
from alignment.fitters.mlp import Mlp
from alignment.fitters.routed import Routed
from alignment.maps import Linear, Map
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows

NETWORKS = ("mlp",)  # the only ones whose map need not be linear
# Training is slow: fewer candidates are tried here.
RECIPES: dict[str, Fitter] = {
    **{name: recipe() for name, recipe in FITTERS.items()},
    "routed": Routed(lambdas=(1e-4, 1e-1), pulls=(1.0,)),
    "mlp": Mlp(lambdas=(1e-4, 1e-1), decays=(0.1,), steps=(1, 30)),
}
FOLDS = 3
CONSTANTS = (0.0, 0.1, 3.14159, 1e4 / 3)  # over 61 rows rounding leaves some of them a variance


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turn(seed: int, width: int) -> Tensor:
    return torch.linalg.qr(normal(seed, width, width)).Q


def rows(seed: int, ds: int, dt: int, n: int = 60) -> tuple[Tensor, Tensor]:
    x = normal(seed, n, ds) + 2
    return x, x @ normal(seed + 1, ds, dt) + normal(seed + 2, n, dt)


def bent(seed: int, ds: int, dt: int, n: int = 200) -> tuple[Tensor, Tensor]:
    """Rows that no linear map tells much of."""
    x = normal(seed, n, ds) + 2
    return x, 3 * torch.relu((x - 2) @ normal(seed + 1, ds, dt)) + 0.3 * normal(seed + 2, n, dt)


class Folded(NamedTuple):
    """What a fitter is given: all rows are in the sample, unless one is told otherwise."""

    moments: FoldedMoments
    rows: FoldedRows


def of_rows(x: Tensor, y: Tensor, ids: Any, k: int = FOLDS) -> Folded:
    return Folded(FoldedMoments.of_rows(x, y, ids, k), FoldedRows.of_rows(x, y, ids, k))


def folded(x: Tensor, y: Tensor) -> Folded:
    return of_rows(x, y, np.arange(len(x)) % FOLDS)


def shuffled(seed: int, x: Tensor, y: Tensor) -> Folded:
    order = np.random.default_rng(seed).permutation(len(x))
    return of_rows(x[order], y[order], order % FOLDS)


def chunked(x: Tensor, y: Tensor) -> Folded:
    ids = np.arange(len(x)) % FOLDS
    parts = (slice(13), slice(13, None))
    first, second = (FoldedMoments.of_rows(x[p], y[p], ids[p], FOLDS) for p in parts)
    return Folded(first + second, FoldedRows.of_rows(x, y, ids, FOLDS))


def assert_alike(left: Map, right: Map) -> None:
    torch.testing.assert_close(matrix(left), matrix(right), rtol=1e-3, atol=1e-4)
    at_zero = torch.zeros(1, left.source_width)
    there = left.transform(at_zero), right.transform(at_zero)
    torch.testing.assert_close(*there, rtol=1e-3, atol=1e-3)


def applies(name: str, ds: int, dt: int) -> bool:
    return RECIPES[name].applies(ds, dt)


def found(name: str, x: Tensor, y: Tensor) -> Fitted:
    return RECIPES[name].fit(*folded(x, y))


def matrix(some: Map) -> Tensor:
    """[dt, ds]: of a map that is not linear, that of its pushforward."""
    if isinstance(some, Linear):
        return some.matrix
    return some.pushforward(torch.eye(some.source_width)).mT.double()


def fit(name: str, given: Folded) -> Map:
    fitted = RECIPES[name].fit(*given).map
    assert isinstance(fitted, Linear) or name in NETWORKS
    return fitted
