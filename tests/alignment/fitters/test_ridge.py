from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor

from alignment.fitted import FitError, Fitted
from alignment.fitters.ridge import Ridge
from alignment.maps import Affine
from alignment.moments import FoldedMoments


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def array(tensor: Tensor) -> Any:  # the stubs of scikit-learn do not know NumPy's arrays
    return np.asarray(tensor.numpy(), dtype=np.float64)


def rows(n: int = 90, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    x = normal(0, n, 8) * torch.linspace(0.1, 3, 8) + 5
    return x, x @ normal(1, 8, 5) + noise * normal(2, n, 5)


def fit(x: Tensor, y: Tensor, *lambdas: float) -> Fitted:
    return Ridge(lambdas).fit(FoldedMoments.of_rows(x, y, np.arange(len(x)) % 3, 3))


@pytest.mark.parametrize("value", [1e-4, 1e-2, 1.0, 30.0])
def test_map_is_that_of_scikit_learn(value: float) -> None:
    x, y = rows()
    fitted = fit(x, y, value).map
    unit = float(x.var(0, correction=0).mean())
    oracle: Any = SklearnRidge(alpha=value * unit * len(x)).fit(array(x), array(y))
    assert isinstance(fitted, Affine)
    np.testing.assert_allclose(array(fitted.weight), oracle.coef_, atol=1e-5)
    np.testing.assert_allclose(array(fitted.bias), oracle.intercept_, atol=1e-4)


def test_curve_is_the_held_out_r2_of_scikit_learn() -> None:
    x, y = rows()
    lambdas = (1e-3, 0.1, 10.0)
    found = fit(x, y, *lambdas)
    for value in lambdas:
        error = spread = 0.0
        for fold in range(3):
            held = np.arange(len(x)) % 3 == fold
            training, wanted = array(x)[~held], array(y)[held]
            alpha = value * training.var(0).mean() * len(training)
            oracle = SklearnRidge(alpha=alpha).fit(training, array(y)[~held])
            error += ((wanted - oracle.predict(array(x)[held])) ** 2).sum()
            spread += ((wanted - array(y)[~held].mean(0)) ** 2).sum()
        assert found.curve[f"{value:g}"] == pytest.approx(float(1 - error / spread), abs=1e-6)


def test_lambda_is_the_best_of_the_curve() -> None:
    clean, noisy = (
        fit(*rows(noise=0.01), 1e-4, 1.0),
        fit(normal(0, 40, 30), normal(1, 40, 5), 1e-4, 1.0),
    )
    assert clean.chosen == {"lambda": 1e-4}
    assert noisy.chosen == {"lambda": 1.0}
    assert noisy.held_out_r2 == max(noisy.curve.values()) == noisy.curve["1"]


@pytest.mark.parametrize("lambdas", [(), (0.0,), (0.1, -1.0), (float("nan"),), (float("inf"),)])
def test_a_lambda_that_cannot_be_is_refused(lambdas: tuple[float, ...]) -> None:
    with pytest.raises(FitError, match="at least one λ, each positive"):
        Ridge(lambdas)
