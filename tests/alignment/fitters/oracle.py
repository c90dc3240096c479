"""What a fitter is held against: another library fitting the rows themselves.

Shapes: n rows, ds source width, dt target width.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignment.fitted import Fitted, Fitter
from alignment.maps import Linear
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows

FOLDS = 3
WIDTHS = [(8, 8), (8, 5), (5, 8)]

Rows = NDArray[np.float64]
Predict = Callable[[Rows], Rows]
Oracle = Callable[[Rows, Rows], Predict]


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def array(tensor: Tensor) -> Any:  # the stubs of scikit-learn do not know NumPy's arrays
    return np.asarray(tensor.numpy(), dtype=np.float64)


def rows(ds: int, dt: int, n: int = 90, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """x [n, ds] of falling spectrum, its components no features, and y [n, dt]."""
    turn = torch.linalg.qr(normal(3, ds, ds)).Q
    x = (normal(0, n, ds) * torch.linspace(3, 0.3, ds)) @ turn + 5
    return x, x @ normal(1, ds, dt) + noise * normal(2, n, dt)


def fit(recipe: Fitter, x: Tensor, y: Tensor) -> Fitted:
    given = (x, y, np.arange(len(x)) % FOLDS, FOLDS)
    return recipe.fit(FoldedMoments.of_rows(*given), FoldedRows.of_rows(*given))


def linear(fitted: Fitted) -> Linear:
    assert isinstance(fitted.map, Linear)
    return fitted.map


def assert_agree(recipe: Fitter, oracle: Oracle, ds: int, dt: int) -> None:
    """The map and the held-out R² of a recipe without choice are those of the oracle."""
    x, y = rows(ds, dt)
    fitted = fit(recipe, x, y)
    predict = oracle(array(x), array(y))
    bias = predict(np.zeros((1, ds)))
    weight = (predict(np.eye(ds)) - bias).T
    np.testing.assert_allclose(linear(fitted).matrix, weight, rtol=0, atol=1e-5)
    np.testing.assert_allclose(linear(fitted).bias, bias[0], rtol=1e-5, atol=1e-5)
    assert fitted.held_out_r2 == pytest.approx(_held_out_r2(oracle, array(x), array(y)), abs=1e-5)


def _held_out_r2(oracle: Oracle, x: Rows, y: Rows) -> float:
    error = spread = 0.0
    for fold in range(FOLDS):
        held = np.arange(len(x)) % FOLDS == fold
        predicted = oracle(x[~held], y[~held])(x[held])
        error += ((y[held] - predicted) ** 2).sum()
        spread += ((y[held] - y[~held].mean(0)) ** 2).sum()
    return float(1 - error / spread)
