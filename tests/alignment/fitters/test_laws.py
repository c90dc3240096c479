"""Laws that every fitter keeps, at widths to which it applies."""

from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.fitted import FitError, Fitted, r2_from_moments
from alignment.fitters import FITTERS
from alignment.maps import Affine, Linear, LowRank, Map, map_from_bytes
from alignment.moments import FoldedMoments, Moments

LEARNING = tuple(sorted(set(FITTERS) - {"identity", "pad_truncate"}))
# These need not turn what never varies in the target into something: rotations must.
REGRESSIONS = ("bottleneck", "multi_scale", "pca", "reduced_rank", "ridge")
LOW_RANK = ("bottleneck", "reduced_rank")

every_fitter = pytest.mark.parametrize("name", FITTERS)
learning = pytest.mark.parametrize("name", LEARNING)
quick = settings(max_examples=10, deadline=None)
seeds = given(seed=st.integers(0, 10**6))
draws = given(seed=st.integers(0, 10**6), ds=st.integers(1, 6), dt=st.integers(1, 6))
FOLDS = 3
CONSTANTS = (0.0, 0.1, 3.14159, 1e4 / 3)  # over 61 rows rounding leaves some of them a variance


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turn(seed: int, width: int) -> Tensor:
    return torch.linalg.qr(normal(seed, width, width)).Q


def rows(seed: int, ds: int, dt: int, n: int = 60) -> tuple[Tensor, Tensor]:
    x = normal(seed, n, ds) + 2
    return x, x @ normal(seed + 1, ds, dt) + normal(seed + 2, n, dt)


def folded(x: Tensor, y: Tensor) -> FoldedMoments:
    return FoldedMoments.of_rows(x, y, np.arange(len(x)) % FOLDS, FOLDS)


def shuffled(seed: int, x: Tensor, y: Tensor) -> FoldedMoments:
    order = np.random.default_rng(seed).permutation(len(x))
    return FoldedMoments.of_rows(x[order], y[order], order % FOLDS, FOLDS)


def chunked(x: Tensor, y: Tensor) -> FoldedMoments:
    ids = np.arange(len(x)) % FOLDS
    parts = (slice(13), slice(13, None))
    first, second = (FoldedMoments.of_rows(x[p], y[p], ids[p], FOLDS) for p in parts)
    return first + second


def assert_alike(left: Linear, right: Linear) -> None:
    torch.testing.assert_close(left.matrix, right.matrix, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left.bias, right.bias, rtol=1e-3, atol=1e-3)


def applies(name: str, ds: int, dt: int) -> bool:
    return FITTERS[name]().applies(ds, dt)


def found(name: str, x: Tensor, y: Tensor) -> Fitted:
    return FITTERS[name]().fit(folded(x, y))


def linear(fitted: Fitted) -> Linear:
    assert isinstance(fitted.map, Linear)
    return fitted.map


def fit(name: str, moments: FoldedMoments) -> Linear:
    return linear(FITTERS[name]().fit(moments))


def test_the_key_is_the_name_of_the_file() -> None:
    assert [recipe().name for recipe in FITTERS.values()] == list(FITTERS)


# --- what is fitted is a map


@every_fitter
@quick
@draws
def test_widths_and_bytes(name: str, seed: int, ds: int, dt: int) -> None:
    moments = folded(*rows(seed, ds, dt))
    if not applies(name, ds, dt):
        with pytest.raises(FitError, match=rf"\Acannot fit: {name} needs .+, not {ds} to {dt}\Z"):
            fit(name, moments)
        return
    fitted = fit(name, moments)
    assert (fitted.source_width, fitted.target_width) == (ds, dt)
    assert map_from_bytes(fitted.to_bytes()).to_bytes() == fitted.to_bytes()


@every_fitter
def test_what_is_saved_is_loaded_bit_for_bit(name: str, tmp_path: Path) -> None:
    x, y = rows(2, 6, 6)
    fitted = fit(name, folded(x, y))
    fitted.save(tmp_path)
    loaded = Map.load_map(tmp_path)
    assert type(loaded) is type(fitted)
    assert torch.equal(loaded.transform(x), fitted.transform(x))
    assert loaded.to_bytes() == fitted.to_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@every_fitter
@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (8, 16), (16, 8)])
def test_pushforward_is_the_derivative_and_pullback_its_transpose(
    name: str, ds: int, dt: int
) -> None:
    if not applies(name, ds, dt):
        return
    fitted = fit(name, folded(*rows(4, ds, dt)))
    points, directions, covectors = normal(1, 3, ds), normal(2, 3, ds), normal(3, 3, dt)
    derivative = torch.func.jvp(fitted.transform, (points,), (directions,))[1]
    torch.testing.assert_close(fitted.pushforward(directions), derivative)
    reads_target = (fitted.pushforward(directions) * covectors).sum(1)
    reads_source = (directions * fitted.pullback(covectors)).sum(1)
    torch.testing.assert_close(reads_target, reads_source, rtol=1e-4, atol=1e-4)


# --- and does not hang on how the anchors came


@every_fitter
@quick
@seeds
def test_neither_the_order_nor_the_chunking_of_anchors_matters(name: str, seed: int) -> None:
    x, y = rows(seed, 4, 4)
    whole = fit(name, folded(x, y))
    assert_alike(fit(name, shuffled(seed, x, y)), whole)
    assert_alike(fit(name, chunked(x, y)), whole)


@every_fitter
@quick
@seeds
def test_nor_where_features_of_the_source_repeat(name: str, seed: int) -> None:
    x, y = rows(seed, 2, 4)
    x = torch.cat((x, x), dim=1)
    whole = fit(name, folded(x, y)).transform(x)
    for moments in (shuffled(seed, x, y), chunked(x, y)):
        torch.testing.assert_close(fit(name, moments).transform(x), whole, rtol=1e-3, atol=1e-3)


# --- held-out R²


@every_fitter
@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (3, 6), (6, 3), (16, 12)])
def test_held_out_r2_is_that_of_the_rows(name: str, ds: int, dt: int) -> None:
    if not applies(name, ds, dt):
        return
    x, y = rows(1, ds, dt)
    fitted = found(name, x, y)
    recipe = FITTERS[name]().settled(fitted.chosen)
    error = spread = 0.0
    for fold in range(FOLDS):
        held = torch.arange(len(x)) % FOLDS == fold
        kept = torch.arange(int((~held).sum())) % 2
        training = FoldedMoments.of_rows(x[~held], y[~held], kept, 2)
        predicted = recipe.fit(training).map.transform(x[held])
        error += float((y[held] - predicted).square().sum())
        spread += float((y[held] - y[~held].mean(0)).square().sum())
    assert fitted.held_out_r2 == pytest.approx(1 - error / spread, abs=1e-4)


@every_fitter
@quick
@seeds
def test_what_is_chosen_is_the_best_of_the_curve(name: str, seed: int) -> None:
    x, y = rows(seed, 5, 5)
    fitted = found(name, x, y)
    again = FITTERS[name]().settled(fitted.chosen).fit(folded(x, y))
    assert linear(again).to_bytes() == linear(fitted).to_bytes()
    assert again.held_out_r2 == pytest.approx(fitted.held_out_r2, abs=1e-12)
    assert again.chosen == fitted.chosen
    if fitted.chosen:
        label = ", ".join(f"{value:g}" for value in fitted.chosen.values())
        assert fitted.curve[label] == fitted.held_out_r2 == max(fitted.curve.values())
        assert list(again.curve) == [label]
    else:
        assert fitted.curve == {}


@every_fitter
@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (16, 12)])
def test_the_curve_is_that_of_each_candidate_alone(name: str, ds: int, dt: int) -> None:
    if not applies(name, ds, dt):
        return
    x, y = rows(2, ds, dt)
    recipe, curve = FITTERS[name](), found(name, x, y).curve
    tried = list(product(*(getattr(recipe, f"{each}s") for each in recipe.chooses)))
    assert len(curve) == (len(tried) if recipe.chooses else 0)
    for values, (label, score) in islice(zip(tried, curve.items(), strict=False), 0, None, 7):
        assert label == ", ".join(f"{value:g}" for value in values)
        alone = recipe.settled(dict(zip(recipe.chooses, values, strict=True)))
        assert alone.fit(folded(x, y)).held_out_r2 == pytest.approx(score, abs=1e-12)


# --- planted maps


@every_fitter
@pytest.mark.parametrize("dt", [4, 6])
def test_what_pads_is_recovered_by_all(name: str, dt: int) -> None:
    if not applies(name, 4, dt):
        return
    x = normal(3, 60, 4)
    fitted = found(name, x, torch.cat((x, torch.zeros(60, dt - 4)), dim=1))
    wanted = torch.eye(dt, 4, dtype=torch.float64)
    torch.testing.assert_close(linear(fitted).matrix, wanted, rtol=1e-3, atol=1e-3)
    assert fitted.held_out_r2 > 0.999


@learning
@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_a_planted_rotation_is_recovered(name: str, seed: int, scale: float) -> None:
    x, planted = normal(seed, 200, 5) + 1, turn(seed + 1, 5)
    planted = planted if name == "orthogonal" else scale * planted
    fitted = found(name, x, x @ planted + 7)
    wanted, slack = planted.mT.double(), 2e-3 * float(planted.norm())
    torch.testing.assert_close(linear(fitted).matrix, wanted, rtol=1e-3, atol=slack)
    assert fitted.held_out_r2 > 0.999


@pytest.mark.parametrize("name", sorted(set(LEARNING) - {"orthogonal", "procrustes"}))
@quick
@seeds
def test_any_planted_map_is_recovered(name: str, seed: int) -> None:
    x, planted = normal(seed, 200, 5) + 1, normal(seed + 1, 5, 5)
    fitted = found(name, x, x @ planted + 7)
    wanted, slack = planted.mT.double(), 2e-3 * float(planted.norm())
    torch.testing.assert_close(linear(fitted).matrix, wanted, rtol=1e-3, atol=slack)
    assert fitted.held_out_r2 > 0.999


@pytest.mark.parametrize("name", LOW_RANK)
@quick
@seeds
def test_a_planted_map_of_low_rank_is_recovered_at_its_rank(name: str, seed: int) -> None:
    centred = normal(seed, 300, 16)
    hidden = torch.linalg.qr(centred - centred.mean(0)).Q * torch.tensor([80.0, 60.0] + [9.0] * 14)
    source, target = turn(seed + 1, 16), turn(seed + 2, 24)
    x, y = hidden @ source.mT + 1, hidden[:, :2] @ target[:, :2].mT + 5
    curve = {}
    for rank in (1, 2):
        fitted = FITTERS[name]().settled({"share": rank / 16}).fit(folded(x, y))
        assert isinstance(fitted.map, LowRank)
        assert fitted.map.rank == rank
        curve[rank] = fitted.held_out_r2
    planted = (target[:, :2] @ source[:, :2].mT).double()
    torch.testing.assert_close(fitted.map.matrix, planted, rtol=0, atol=1e-3)
    assert curve[1] < 0.9 < 0.99 < curve[2]


@pytest.mark.parametrize("name", LOW_RANK)
def test_factors_are_kept_only_where_they_are_smaller_than_their_product(name: str) -> None:
    x, y = rows(5, 16, 16)
    for share, kind in ((0.25, LowRank), (0.5, Affine), (1.0, Affine)):
        fitted = FITTERS[name]().settled({"share": share}).fit(folded(x, y))
        assert isinstance(fitted.map, kind)


# --- degenerate rows


@every_fitter
@pytest.mark.parametrize(("ds", "dt"), [(4, 6), (9, 6), (9, 9)])
def test_fewer_rows_than_features_still_fit(name: str, ds: int, dt: int) -> None:
    if not applies(name, ds, dt):
        return
    x, y = rows(5, ds, dt, n=6)
    fitted = found(name, x, y)
    assert fitted.map.transform(x).isfinite().all()
    assert np.isfinite([fitted.held_out_r2, *fitted.curve.values()]).all()


@learning
@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_source_that_does_not_vary_gives_the_mean(name: str, constant: float) -> None:
    """And its rounding is no direction to learn from; a rotation has to turn it into something."""
    x, (_, y) = torch.full((61, 4), constant, dtype=torch.float64), rows(6, 4, 4, n=61)
    fitted = fit(name, folded(x, y.double()))
    wanted = y.mean(0).expand(61, 4)
    torch.testing.assert_close(fitted.transform(x.float()), wanted, rtol=1e-4, atol=1e-4)
    assert name == "orthogonal" or not fitted.matrix.any()


@pytest.mark.parametrize("name", REGRESSIONS)
@quick
@seeds
def test_features_of_the_target_that_repeat_are_predicted_alike(name: str, seed: int) -> None:
    x, y = rows(seed, 4, 2)
    predicted = fit(name, folded(x, torch.cat((y, y, torch.full((60, 1), 3.0)), 1))).transform(x)
    torch.testing.assert_close(predicted[:, :2], predicted[:, 2:4], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predicted[:, 4], torch.full((60,), 3.0), rtol=1e-4, atol=1e-4)


@every_fitter
def test_moments_that_cannot_be_fitted_are_refused(name: str) -> None:
    x, y = rows(7, 4, 4, n=61)
    one_fold = FoldedMoments.of_rows(x, y, np.zeros(61, dtype=int), 3)
    with pytest.raises(FitError, match="1 of 3 folds hold rows, need 2"):
        fit(name, one_fold)
    for constant in CONSTANTS:
        with pytest.raises(FitError, match="the target does not vary"):
            fit(name, folded(x.double(), torch.full_like(y, constant, dtype=torch.float64)))
    x[5, 1] = torch.nan
    with pytest.raises(FitError, match="NaN"):
        fit(name, folded(x, y))


# --- recipes


@every_fitter
@pytest.mark.parametrize("values", [(), (0.0,), (0.1, -1.0), (float("nan"),), (float("inf"),)])
def test_a_candidate_that_cannot_be_is_refused(name: str, values: tuple[float, ...]) -> None:
    recipe = FITTERS[name]
    for chosen in recipe.chooses:
        with pytest.raises(FitError, match=rf"\A{name} needs at least one .+ positive.*; got "):
            recipe(**{f"{chosen}s": values})
        if chosen == "share":
            with pytest.raises(FitError, match="each positive and at most 1; got"):
                recipe(**{f"{chosen}s": (1.5,)})


def test_r2_from_moments_is_that_of_the_rows() -> None:
    x, y = rows(8, 4, 3)
    some = Affine(normal(9, 3, 4), normal(10, 3))
    low = LowRank(normal(9, 3, 1), normal(11, 1, 4), normal(10, 3))
    moments = Moments.of(x, y)
    zero = torch.zeros(3, dtype=torch.float64)
    for each in (some, low):
        error = (y - each.transform(x)).square().sum()
        about_own = float(1 - error / (y - y.mean(0)).square().sum())
        assert r2_from_moments(each, moments) == pytest.approx(about_own, rel=1e-4)
        about_zero = float(1 - error / y.square().sum())
        assert r2_from_moments(each, moments, zero) == pytest.approx(about_zero, rel=1e-4)
