"""Laws that every fitter keeps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.fitted import FitError, r2_from_moments
from alignment.fitters import FITTERS
from alignment.fitters.ridge import Ridge
from alignment.maps import Affine, map_from_bytes
from alignment.moments import FoldedMoments, Moments

every_fitter = pytest.mark.parametrize("name", FITTERS)
quick = settings(max_examples=10, deadline=None)
draws = given(seed=st.integers(0, 10**6), ds=st.integers(1, 6), dt=st.integers(1, 6))
FOLDS = 3


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(seed: int, ds: int, dt: int, n: int = 60) -> tuple[Tensor, Tensor]:
    x = normal(seed, n, ds) + 2
    return x, x @ normal(seed + 1, ds, dt) + normal(seed + 2, n, dt)


def folded(x: Tensor, y: Tensor) -> FoldedMoments:
    return FoldedMoments.of_rows(x, y, np.arange(len(x)) % FOLDS, FOLDS)


def assert_alike(left: Affine, right: Affine) -> None:
    torch.testing.assert_close(left.weight, right.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left.bias, right.bias, rtol=1e-3, atol=1e-3)


def fit(name: str, moments: FoldedMoments) -> Affine:
    fitted = FITTERS[name]().fit(moments).map
    assert isinstance(fitted, Affine)
    return fitted


@every_fitter
@quick
@draws
def test_widths_and_bytes(name: str, seed: int, ds: int, dt: int) -> None:
    fitted = fit(name, folded(*rows(seed, ds, dt)))
    assert (fitted.source_width, fitted.target_width) == (ds, dt)
    assert map_from_bytes(fitted.to_bytes()).to_bytes() == fitted.to_bytes()


@every_fitter
@quick
@given(seed=st.integers(0, 10**6))
def test_neither_the_order_nor_the_chunking_of_anchors_matters(name: str, seed: int) -> None:
    x, y = rows(seed, 4, 4)
    ids = np.arange(len(x)) % FOLDS
    order = np.random.default_rng(seed).permutation(len(x))
    shuffled = FoldedMoments.of_rows(x[order], y[order], ids[order], FOLDS)
    chunked = FoldedMoments.of_rows(x[:13], y[:13], ids[:13], FOLDS)
    chunked += FoldedMoments.of_rows(x[13:], y[13:], ids[13:], FOLDS)
    whole = fit(name, folded(x, y))
    assert_alike(fit(name, shuffled), whole)
    assert_alike(fit(name, chunked), whole)


@every_fitter
@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (3, 6), (6, 3)])
def test_held_out_r2_is_that_of_the_rows(name: str, ds: int, dt: int) -> None:
    x, y = rows(1, ds, dt)
    found = FITTERS[name]().fit(folded(x, y))
    recipe = Ridge((found.chosen["lambda"],)) if name == "ridge" else FITTERS[name]()
    error = spread = 0.0
    for fold in range(FOLDS):
        held = torch.arange(len(x)) % FOLDS == fold
        kept = torch.arange(int((~held).sum())) % 2
        training = FoldedMoments.of_rows(x[~held], y[~held], kept, 2)
        predicted = recipe.fit(training).map.transform(x[held])
        error += float((y[held] - predicted).square().sum())
        spread += float((y[held] - y[~held].mean(0)).square().sum())
    assert found.held_out_r2 == pytest.approx(1 - error / spread, abs=1e-4)


@every_fitter
def test_what_pads_is_recovered_by_all(name: str) -> None:
    x = normal(3, 60, 4)
    found = FITTERS[name]().fit(folded(x, torch.cat((x, torch.zeros(60, 2)), dim=1)))
    assert isinstance(found.map, Affine)
    torch.testing.assert_close(found.map.weight, torch.eye(6, 4), rtol=1e-3, atol=1e-3)
    assert found.held_out_r2 > 0.999


@pytest.mark.parametrize("name", ["procrustes", "ridge"])
@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_a_planted_rotation_is_recovered(name: str, seed: int, scale: float) -> None:
    x = normal(seed, 200, 5) + 1
    rotation = torch.linalg.qr(normal(seed + 1, 5, 5)).Q
    found = FITTERS[name]().fit(folded(x, scale * x @ rotation + 7))
    assert isinstance(found.map, Affine)
    torch.testing.assert_close(found.map.weight, scale * rotation.mT, rtol=1e-3, atol=2e-3 * scale)
    assert found.held_out_r2 > 0.999


@every_fitter
@pytest.mark.parametrize("ds", [4, 9])
def test_fewer_rows_than_features_still_fit(name: str, ds: int) -> None:
    x, y = rows(5, ds, 6, n=6)
    assert fit(name, folded(x, y)).transform(x).isfinite().all()


@every_fitter
def test_a_source_that_does_not_vary_gives_the_mean(name: str) -> None:
    x, (_, y) = torch.zeros(60, 4), rows(6, 4, 4)
    predicted = fit(name, folded(x, y)).transform(x)
    if name != "pad_truncate":
        torch.testing.assert_close(predicted, y.mean(0).expand(60, 4), rtol=1e-4, atol=1e-4)


@every_fitter
def test_moments_that_cannot_be_fitted_are_refused(name: str) -> None:
    x, y = rows(7, 4, 4)
    one_fold = FoldedMoments.of_rows(x, y, np.zeros(60, dtype=int), 3)
    with pytest.raises(FitError, match="1 of 3 folds hold rows, need 2"):
        fit(name, one_fold)
    with pytest.raises(FitError, match="the target does not vary"):
        fit(name, folded(x, torch.zeros_like(y)))
    x[5, 1] = torch.nan
    with pytest.raises(FitError, match="NaN"):
        fit(name, folded(x, y))


def test_r2_from_moments_is_that_of_the_rows() -> None:
    x, y = rows(8, 4, 3)
    some = Affine(normal(9, 3, 4), normal(10, 3))
    error = (y - some.transform(x)).square().sum()
    moments = Moments.of(x, y)
    about_own = float(1 - error / (y - y.mean(0)).square().sum())
    assert r2_from_moments(some, moments) == pytest.approx(about_own, rel=1e-4)
    about_zero = float(1 - error / y.square().sum())
    zero = torch.zeros(3, dtype=torch.float64)
    assert r2_from_moments(some, moments, zero) == pytest.approx(about_zero, rel=1e-4)
