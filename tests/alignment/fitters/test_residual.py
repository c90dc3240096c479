import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

from alignment.fitters.procrustes import Procrustes
from alignment.fitters.residual import Residual
from tests.alignment.fitters.oracle import WIDTHS, Predict, Rows, assert_agree, fit, linear, rows


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("value", [1e-3, 1e-1, 10.0])
def test_residual_is_scikit_learn_s_ridge_on_what_scipy_leaves(
    value: float, ds: int, dt: int
) -> None:
    def oracle(x: Rows, y: Rows) -> Predict:
        width, near_x, near_y = max(ds, dt), x - x.mean(0), y - y.mean(0)
        pads = [((0, 0), (0, width - narrow)) for narrow in (ds, dt)]
        rotation, _ = orthogonal_procrustes(np.pad(near_x, pads[0]), np.pad(near_y, pads[1]))
        base = rotation[:ds, :dt]
        base = base * ((near_x @ base * near_y).sum() / ((near_x @ base) ** 2).sum())
        alpha = value * float(x.var(0).mean()) * len(x)
        rest = Ridge(alpha=alpha).fit(x, y - x @ base)
        return lambda points: points @ base + rest.predict(points)

    assert_agree(Residual((value,)), oracle, ds, dt)


def test_a_heavy_penalty_leaves_the_base() -> None:
    x, y = rows(8, 5)
    base = linear(fit(Procrustes(), x, y))
    heavy = linear(fit(Residual((1e9,)), x, y))
    np.testing.assert_allclose(heavy.matrix, base.matrix, rtol=0, atol=1e-6)
