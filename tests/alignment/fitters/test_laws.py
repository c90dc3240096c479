"""Laws that every fitter keeps, at widths to which it applies."""

from collections.abc import Callable
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.fitted import FitError, r2_from_moments
from alignment.fitters import FITTERS
from alignment.maps import Affine, Linear, LowRank, Map, Network, map_from_bytes
from alignment.moments import Moments
from alignment.samples import FoldedRows
from tests.alignment.fitters.law_rows import (
    CONSTANTS,
    FOLDS,
    NETWORKS,
    RECIPES,
    applies,
    assert_alike,
    bent,
    chunked,
    fit,
    folded,
    found,
    matrix,
    normal,
    of_rows,
    rows,
    shuffled,
    turn,
)

LEARNING = tuple(sorted(set(FITTERS) - {"identity", "pad_truncate"}))
# Rotations must turn something into what never varies in the target; these need not.
ROTATIONS = ("anchor_locked", "orthogonal", "procrustes")
REGRESSIONS = ("bottleneck", "mlp", "multi_scale", "pca", "reduced_rank", "relative", "ridge")
LOW_RANK = ("bottleneck", "reduced_rank")

every_fitter = pytest.mark.parametrize("name", FITTERS)
learning = pytest.mark.parametrize("name", LEARNING)
quick = settings(max_examples=10, deadline=None)
seeds = given(seed=st.integers(0, 10**6))
draws = given(seed=st.integers(0, 10**6), ds=st.integers(1, 6), dt=st.integers(1, 6))


def test_the_key_is_the_name_of_the_file() -> None:
    assert [recipe().name for recipe in FITTERS.values()] == list(FITTERS)


# --- what is fitted is a map


@every_fitter
@quick
@draws
def test_widths_and_bytes(name: str, seed: int, ds: int, dt: int) -> None:
    given = folded(*rows(seed, ds, dt))
    if not applies(name, ds, dt):
        with pytest.raises(FitError, match=rf"\Acannot fit: {name} needs .+, not {ds} to {dt}\Z"):
            fit(name, given)
        return
    fitted = fit(name, given)
    assert (fitted.source_width, fitted.target_width) == (ds, dt)
    assert map_from_bytes(fitted.to_bytes()).to_bytes() == fitted.to_bytes()


@every_fitter
@pytest.mark.parametrize("make", [rows, bent])
def test_what_is_saved_is_loaded_bit_for_bit(
    name: str, make: Callable[..., tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    x, y = make(2, 6, 6)
    fitted = fit(name, folded(x, y))
    fitted.save(tmp_path)
    loaded = Map.load_map(tmp_path)
    assert type(loaded) is type(fitted)
    assert torch.equal(loaded.transform(x), fitted.transform(x))
    assert loaded.to_bytes() == fitted.to_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@every_fitter
@pytest.mark.parametrize("make", [rows, bent])
@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (8, 16), (16, 8)])
def test_pushforward_is_the_derivative_and_pullback_its_transpose(
    name: str, make: Callable[..., tuple[Tensor, Tensor]], ds: int, dt: int
) -> None:
    """The derivative anywhere of a linear map; of another its mean over the rows it learned from.

    The transpose holds for all.
    """
    if not applies(name, ds, dt):
        return
    x, y = make(4, ds, dt)
    fitted = fit(name, folded(x, y))
    points, directions, covectors = normal(1, 3, ds), normal(2, 3, ds), normal(3, 3, dt)
    if name in NETWORKS:
        assert isinstance(fitted, Network) == (make is bent)
        at_rows = [
            torch.func.jvp(fitted.transform, (x,), (each.expand(len(x), ds),))[1].mean(0)
            for each in directions
        ]
        torch.testing.assert_close(fitted.pushforward(directions), torch.stack(at_rows))
    if isinstance(fitted, Linear):
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
    for x, y in (rows(seed, 4, 4), bent(seed, 4, 4, n=60)):
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
    for again in (shuffled(seed, x, y), chunked(x, y)):
        torch.testing.assert_close(fit(name, again).transform(x), whole, rtol=1e-3, atol=1e-3)


# --- held-out R²


@every_fitter
@pytest.mark.parametrize(("ds", "dt"), [(5, 5), (3, 6), (6, 3), (16, 12)])
@pytest.mark.parametrize("make", [rows, bent])
def test_held_out_r2_is_that_of_the_rows(
    name: str, make: Callable[..., tuple[Tensor, Tensor]], ds: int, dt: int
) -> None:
    if not applies(name, ds, dt):
        return
    x, y = make(1, ds, dt)
    fitted = found(name, x, y)
    recipe = RECIPES[name].settled(fitted.chosen)
    error = spread = 0.0
    for fold in range(FOLDS):
        held = torch.arange(len(x)) % FOLDS == fold
        kept = torch.arange(int((~held).sum())) % 2
        training = of_rows(x[~held], y[~held], kept, 2)
        predicted = recipe.fit(*training).map.transform(x[held])
        error += float((y[held] - predicted).square().sum())
        spread += float((y[held] - y[~held].mean(0)).square().sum())
    assert fitted.held_out_r2 == pytest.approx(1 - error / spread, abs=1e-4)


@every_fitter
@quick
@seeds
def test_what_is_chosen_is_the_best_of_the_curve(name: str, seed: int) -> None:
    x, y = rows(seed, 5, 5)
    fitted = found(name, x, y)
    again = RECIPES[name].settled(fitted.chosen).fit(*folded(x, y))
    assert again.map.to_bytes() == fitted.map.to_bytes()
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
    recipe, curve = RECIPES[name], found(name, x, y).curve
    tried = list(product(*(getattr(recipe, f"{each}s") for each in recipe.chooses)))
    assert len(curve) == (len(tried) if recipe.chooses else 0)
    for values, (label, score) in islice(zip(tried, curve.items(), strict=False), 0, None, 7):
        assert label == ", ".join(f"{value:g}" for value in values)
        alone = recipe.settled(dict(zip(recipe.chooses, values, strict=True)))
        assert alone.fit(*folded(x, y)).held_out_r2 == pytest.approx(score, abs=1e-12)


# --- planted maps


@every_fitter
@pytest.mark.parametrize("dt", [4, 6])
def test_what_pads_is_recovered_by_all(name: str, dt: int) -> None:
    if not applies(name, 4, dt):
        return
    x = normal(3, 60, 4)
    fitted = found(name, x, torch.cat((x, torch.zeros(60, dt - 4)), dim=1))
    wanted = torch.eye(dt, 4, dtype=torch.float64)
    torch.testing.assert_close(matrix(fitted.map), wanted, rtol=1e-3, atol=1e-3)
    assert fitted.held_out_r2 > 0.999


@learning
@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_a_planted_rotation_is_recovered(name: str, seed: int, scale: float) -> None:
    x, planted = normal(seed, 200, 5) + 1, turn(seed + 1, 5)
    planted = planted if name == "orthogonal" else scale * planted
    fitted = found(name, x, x @ planted + 7)
    wanted, slack = planted.mT.double(), 2e-3 * float(planted.norm())
    torch.testing.assert_close(matrix(fitted.map), wanted, rtol=1e-3, atol=slack)
    assert fitted.held_out_r2 > 0.999


@pytest.mark.parametrize("name", sorted(set(LEARNING) - {*ROTATIONS, "relative"}))
@quick
@seeds
def test_any_planted_map_is_recovered(name: str, seed: int) -> None:
    x, planted = normal(seed, 200, 5) + 1, normal(seed + 1, 5, 5)
    fitted = found(name, x, x @ planted + 7)
    wanted, slack = planted.mT.double(), 2e-3 * float(planted.norm())
    torch.testing.assert_close(matrix(fitted.map), wanted, rtol=1e-3, atol=slack)
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
        fitted = RECIPES[name].settled({"share": rank / 16}).fit(*folded(x, y))
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
        fitted = RECIPES[name].settled({"share": share}).fit(*folded(x, y))
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
    assert name == "orthogonal" or not matrix(fitted).any()


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
    one_fold = of_rows(x, y, np.zeros(61, dtype=int), 3)
    with pytest.raises(FitError, match="1 of 3 folds hold rows, need 2"):
        fit(name, one_fold)
    for constant in CONSTANTS:
        with pytest.raises(FitError, match="the target does not vary"):
            fit(name, folded(x.double(), torch.full_like(y, constant, dtype=torch.float64)))
    x[5, 1] = torch.nan
    with pytest.raises(FitError, match="NaN"):
        fit(name, folded(x, y))


@pytest.mark.parametrize("name", [name for name, of in FITTERS.items() if of.needs_rows])
def test_a_fitter_of_rows_says_that_it_needs_them(name: str) -> None:
    x, y = rows(7, 4, 4)
    line = rf"\Acannot fit: {name} needs a sample of rows in at least 2 folds\Z"
    given = folded(x, y)
    in_one_fold = FoldedRows.of_rows(x[:20], y[:20], np.zeros(20, dtype=int), FOLDS)
    for few in (None, in_one_fold):
        with pytest.raises(FitError, match=line):
            RECIPES[name].fit(given.moments, few)


@pytest.mark.parametrize("name", [name for name, of in FITTERS.items() if not of.needs_rows])
def test_the_others_do_not_look_at_rows(name: str) -> None:
    given = folded(*rows(7, 4, 4))
    alone = RECIPES[name].fit(given.moments)
    assert alone.map.to_bytes() == RECIPES[name].fit(*given).map.to_bytes()


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
