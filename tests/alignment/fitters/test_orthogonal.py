import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from alignment.fitters.orthogonal import Orthogonal
from tests.alignment.fitters.oracle import WIDTHS, Predict, Rows, assert_agree, fit, linear, rows


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
def test_rotation_is_that_of_scipy_after_padding(ds: int, dt: int) -> None:
    def oracle(x: Rows, y: Rows) -> Predict:
        width, mean_x, mean_y = max(ds, dt), x.mean(0), y.mean(0)
        padded = (
            np.pad(x - mean_x, ((0, 0), (0, width - ds))),
            np.pad(y - mean_y, ((0, 0), (0, width - dt))),
        )
        rotation, _ = orthogonal_procrustes(*padded)
        return lambda points: (points - mean_x) @ rotation[:ds, :dt] + mean_y

    assert_agree(Orthogonal(), oracle, ds, dt)


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
def test_rotation_is_semi_orthogonal_and_passes_through_the_means(ds: int, dt: int) -> None:
    x, y = rows(ds, dt)
    fitted = linear(fit(Orthogonal(), x, y))
    weight = fitted.matrix if dt <= ds else fitted.matrix.mT
    eye = torch.eye(min(ds, dt), dtype=torch.float64)
    torch.testing.assert_close(weight @ weight.mT, eye, rtol=0, atol=1e-6)
    mean = fitted.transform(x.mean(0, keepdim=True).float())[0]
    torch.testing.assert_close(mean, y.mean(0).float(), rtol=1e-4, atol=1e-4)
