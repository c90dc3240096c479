import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from alignment.fitters.ridge import Ridge
from tests.alignment.fitters.oracle import (
    WIDTHS,
    Predict,
    Rows,
    assert_agree,
    fit,
    normal,
    rows,
)


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("value", [1e-4, 1e-2, 1.0, 30.0])
def test_ridge_is_that_of_scikit_learn(value: float, ds: int, dt: int) -> None:
    def oracle(x: Rows, y: Rows) -> Predict:
        return SklearnRidge(alpha=value * float(x.var(0).mean()) * len(x)).fit(x, y).predict

    assert_agree(Ridge((value,)), oracle, ds, dt)


def test_lambda_is_small_on_clean_rows_and_large_on_noise() -> None:
    recipe = Ridge((1e-4, 1.0))
    assert fit(recipe, *rows(8, 5, noise=0.01)).chosen == {"lambda": 1e-4}
    assert fit(recipe, normal(0, 40, 30), normal(1, 40, 5)).chosen == {"lambda": 1.0}
