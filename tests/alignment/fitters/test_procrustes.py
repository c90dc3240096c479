import pytest
import torch
from scipy.spatial import procrustes

from alignment.fitters.orthogonal import Orthogonal
from alignment.fitters.procrustes import Procrustes
from tests.alignment.fitters.oracle import WIDTHS, array, fit, linear, rows


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
def test_scale_is_least_squares_for_the_rotation(ds: int, dt: int) -> None:
    x, y = rows(ds, dt)
    plain, scaled = (linear(fit(recipe, x, y)).matrix for recipe in (Orthogonal(), Procrustes()))
    moved, wanted = (x - x.mean(0)) @ plain.mT, y - y.mean(0)
    best = float((moved * wanted).sum() / moved.square().sum())
    torch.testing.assert_close(scaled, best * plain, rtol=0, atol=1e-5)


def test_what_is_left_is_scipy_s_disparity() -> None:
    x, y = rows(8, 8)
    _, _, disparity = procrustes(array(y), array(x))
    left = y - linear(fit(Procrustes(), x, y)).transform(x.float())
    share = float(left.square().sum() / (y - y.mean(0)).square().sum())
    assert share == pytest.approx(disparity, abs=1e-5)
