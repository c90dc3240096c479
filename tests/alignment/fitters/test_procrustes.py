import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from alignment.fitters.procrustes import Procrustes
from alignment.maps import Affine
from alignment.moments import FoldedMoments


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(ds: int, dt: int) -> tuple[Tensor, Tensor]:
    x = normal(0, 90, ds) * torch.linspace(0.5, 2, ds) + 3
    return x, x @ normal(1, ds, dt) + normal(2, 90, dt)


def fit(x: Tensor, y: Tensor, scaled: bool) -> Affine:
    moments = FoldedMoments.of_rows(x, y, np.arange(len(x)) % 3, 3)
    fitted = Procrustes(scaled=scaled).fit(moments).map
    assert isinstance(fitted, Affine)
    return fitted


@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (4, 7), (7, 4)])
def test_rotation_is_that_of_scipy_after_padding(ds: int, dt: int) -> None:
    x, y = rows(ds, dt)
    width = max(ds, dt)
    near = [np.zeros((90, width)), np.zeros((90, width))]
    near[0][:, :ds] = (x - x.mean(0)).double()
    near[1][:, :dt] = (y - y.mean(0)).double()
    rotation, _ = orthogonal_procrustes(near[0], near[1])
    np.testing.assert_allclose(fit(x, y, False).weight, rotation.T[:dt, :ds], atol=1e-5)


@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (4, 7), (7, 4)])
def test_rotation_is_semi_orthogonal_and_passes_through_the_means(ds: int, dt: int) -> None:
    x, y = rows(ds, dt)
    fitted = fit(x, y, False)
    weight = fitted.weight if dt <= ds else fitted.weight.mT
    torch.testing.assert_close(weight @ weight.mT, torch.eye(min(ds, dt)), rtol=0, atol=1e-5)
    torch.testing.assert_close(fitted.transform(x.mean(0)), y.mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (4, 7), (7, 4)])
def test_scale_is_least_squares_for_the_rotation(ds: int, dt: int) -> None:
    x, y = rows(ds, dt)
    plain, scaled = fit(x, y, False), fit(x, y, True)
    moved, wanted = plain.pushforward(x - x.mean(0)), y - y.mean(0)
    best = float((moved * wanted).sum() / moved.square().sum())
    torch.testing.assert_close(scaled.weight, best * plain.weight, rtol=1e-4, atol=1e-5)
