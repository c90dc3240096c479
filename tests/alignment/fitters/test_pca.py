import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from alignment.fitters.pca import Pca
from tests.alignment.fitters.oracle import (
    WIDTHS,
    Predict,
    Rows,
    array,
    assert_agree,
    fit,
    linear,
    normal,
)


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_pca_is_the_pipeline_of_scikit_learn(share: float, ds: int, dt: int) -> None:
    def oracle(x: Rows, y: Rows) -> Predict:
        steps = make_pipeline(PCA(round(share * ds)), LinearRegression()).fit(x, y)
        return lambda points: np.asarray(steps.predict(points))

    assert_agree(Pca((share,)), oracle, ds, dt)


def test_the_share_is_that_of_the_components_that_say_something() -> None:
    x = normal(0, 300, 16) * torch.tensor([4.0] * 4 + [1.0] * 12)
    found = fit(Pca(), x, x[:, :4] @ normal(1, 4, 8) + normal(2, 300, 8))
    assert found.chosen == {"share": 0.25}


def test_a_component_that_is_rounding_is_left_out() -> None:
    """Of float32 rows, which leave more in their sums than float64 would: the shortest solution."""
    some = normal(0, 300, 6).float()
    x = torch.cat((some, some @ normal(1, 6, 4).float()), dim=1)
    y = x @ normal(2, 10, 3).float()
    fitted = linear(fit(Pca((1.0,)), x, y))
    shortest = np.linalg.lstsq(array(x - x.mean(0)), array(y - y.mean(0)), rcond=1e-4)[0].T
    np.testing.assert_allclose(fitted.matrix, shortest, rtol=0, atol=1e-5)
