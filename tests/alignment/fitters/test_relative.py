import numpy as np
import pytest
import torch

from alignment.fitters.relative import Relative
from tests.alignment.fitters.oracle import WIDTHS, Predict, Rows, assert_agree, fit, linear, normal


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("value", [1e-3, 1e-1, 10.0])
def test_relative_is_that_of_inner_products_with_every_anchor(
    value: float, ds: int, dt: int
) -> None:
    """Each point by its inner products with all rows; the penalty counts as rows of the target."""

    def oracle(x: Rows, y: Rows) -> Predict:
        mean_x, mean_y = x.mean(0), y.mean(0)
        penalty = np.sqrt(value * y.var(0).mean() * len(y))
        anchors = np.concatenate((y - mean_y, penalty * np.eye(dt)))

        def nearest(points: Rows) -> Rows:
            products = (points - mean_x) @ (x - mean_x).T
            padded = np.concatenate((products, np.zeros((len(points), dt))), axis=1)
            return np.linalg.lstsq(anchors, padded.T)[0].T

        found = nearest(x)
        scale = (found * (y - mean_y)).sum() / (found**2).sum()
        return lambda points: scale * nearest(points) + mean_y

    assert_agree(Relative((value,)), oracle, ds, dt)


def test_lambda_is_small_on_clean_rows_and_large_on_noise() -> None:
    turn = torch.linalg.qr(normal(1, 20, 20)).Q
    x = normal(0, 60, 20) * torch.linspace(3, 0.1, 20)
    recipe = Relative((1e-4, 1.0))
    assert fit(recipe, x, x @ turn).chosen == {"lambda": 1e-4}
    assert fit(recipe, x, x @ turn + 2 * normal(2, 60, 20)).chosen == {"lambda": 1.0}


def test_the_length_of_the_target_is_met_though_inner_products_do_not_tell_it() -> None:
    x = normal(0, 90, 6)
    for scale in (0.01, 1.0, 100.0):
        weight = linear(fit(Relative((1e-4,)), x, scale * x)).matrix
        assert float(weight.diagonal().mean()) == pytest.approx(scale, rel=1e-4)
