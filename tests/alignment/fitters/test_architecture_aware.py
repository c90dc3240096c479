from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alignment.anatomy import Anatomy
from alignment.fitters import FITTERS
from alignment.fitters.architecture_aware import (
    ArchitectureAware,
    centring,
    gains,
    heads,
    overlaps,
    spreads,
)
from alignment.fitters.residual import Residual
from alignment.fitters.ridge import Ridge as RidgeFitter
from alignment.moments import Moments
from tests.alignment.fitters.oracle import (
    WIDTHS,
    Predict,
    Rows,
    array,
    assert_agree,
    fit,
    linear,
    normal,
    rows,
)

PLAIN = Anatomy(8, 3, 4, 2, 2, "rms", "swiglu")


def recipe(source: Anatomy, target: Anatomy, value: float = 0.1) -> ArchitectureAware:
    return replace(ArchitectureAware.between(source, target), lambdas=(value,))


def test_others_are_the_same_between_any_anatomies() -> None:
    for name, of in FITTERS.items():
        looks = name == "architecture_aware" or of.needs_routes
        assert (of.between(PLAIN, PLAIN) == of()) == (not looks)


# --- widths


@pytest.mark.parametrize(("ds", "dt", "near"), [(8, 8, True), (10, 9, True), (10, 8, False)])
def test_near_widths_have_a_rotation_for_base_and_others_none(ds: int, dt: int, near: bool) -> None:
    x, y = rows(ds, dt)
    alike = (Residual if near else RidgeFitter)((0.1,))
    for aware in (ArchitectureAware(lambdas=(0.1,)), recipe(PLAIN, PLAIN)):
        found, expected = (linear(fit(each, x, y)).matrix for each in (aware, alike))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# --- norms


def test_a_source_under_layer_norm_loses_the_mean_across_its_features() -> None:
    x, y = rows(8, 5)
    layer = replace(PLAIN, norm="layer")
    weight = linear(fit(recipe(layer, layer), x, y)).matrix
    assert weight.abs().max() > 0.1
    torch.testing.assert_close(weight.sum(1), torch.zeros(5).double(), rtol=0, atol=1e-5)
    moved = x @ centring(8)
    torch.testing.assert_close(moved, x - x.mean(1, keepdim=True))


@pytest.mark.parametrize(("ds", "dt"), [(8, 5), (5, 8)])
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_between_norms_it_is_ridge_on_what_scikit_learn_standardises(
    norm: Literal["rms", "layer"], ds: int, dt: int
) -> None:
    source = replace(PLAIN, norm=norm)
    target = replace(PLAIN, norm="layer" if norm == "rms" else "rms")

    def oracle(x: Rows, y: Rows) -> Predict:
        scaler = StandardScaler().fit(y)
        steps = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * len(x)))

        def seen(points: Rows) -> Rows:
            return points - points.mean(1, keepdims=True) if norm == "layer" else points

        steps.fit(seen(x), scaler.transform(y))
        return lambda points: np.asarray(scaler.inverse_transform(steps.predict(seen(points))))

    assert_agree(recipe(source, target), oracle, ds, dt)


def test_keys_and_values_are_not_in_the_stream_and_keep_their_mean() -> None:
    x, y = rows(4, 4)
    layer = replace(PLAIN, norm="layer", site="keys")
    found, plain = (
        linear(fit(recipe(source, replace(PLAIN, site="keys")), x, y)).matrix
        for source in (layer, replace(PLAIN, site="keys"))
    )
    assert torch.equal(found, plain)


def test_a_feature_that_does_not_vary_has_no_spread_to_divide_by() -> None:
    x = torch.cat((2 * normal(0, 50, 2), torch.full((50, 1), 0.1).double()), dim=1)
    found = spreads(Moments.of(x, x))
    torch.testing.assert_close(found[:2], x.std(0, correction=0)[:2])
    assert found[2] == 1


# --- heads


def test_overlaps_pool_or_repeat() -> None:
    half, third = 1 / 2, 1 / 3
    assert overlaps(4, 2).tolist() == [[half, half, 0, 0], [0, 0, half, half]]
    assert overlaps(2, 4).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    expected = torch.tensor([[2 * third, third, 0], [0, third, 2 * third]], dtype=torch.float64)
    torch.testing.assert_close(overlaps(3, 2), expected)
    for source in range(1, 13):
        for target in range(1, 13):
            shares = overlaps(source, target)
            torch.testing.assert_close(shares.sum(1), torch.ones(target).double())
            torch.testing.assert_close(
                shares.sum(0), torch.full((source,), target / source).double()
            )


@pytest.mark.parametrize(
    ("source", "target"), [((4, 3), (2, 3)), ((2, 3), (4, 3)), ((4, 2), (2, 3))]
)
def test_heads_that_are_pooled_and_turned_are_found(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    """Exactly, by the base alone: with a penalty that leaves nothing else."""
    (ks, ws), (kt, wt) = source, target
    turns = [1.5 * torch.linalg.qr(normal(j, wt, wt)).Q[:, :ws] for j in range(kt)]
    planted = torch.block_diag(*turns) @ torch.kron(overlaps(ks, kt), torch.eye(ws).double())
    x = normal(9, 400, ks * ws)
    y = x @ planted.mT
    torch.testing.assert_close(heads(Moments.of(x, y), source, target), planted)
    sides = (replace(PLAIN, kv_heads=k, head_width=w, site="values") for k, w in (source, target))
    found = fit(recipe(*sides, value=1e9), x, y)
    torch.testing.assert_close(linear(found).matrix, planted, rtol=0, atol=1e-5)
    assert found.held_out_r2 > 0.999


def test_what_heads_do_not_explain_is_left_to_ridge() -> None:
    x, y = rows(4, 4, n=300, noise=0.01)
    side = replace(PLAIN, site="keys")
    assert fit(ArchitectureAware.between(side, side), x, y).held_out_r2 > 0.99


# --- activations


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
def test_between_gates_each_feature_has_the_gain_of_scikit_learn(ds: int, dt: int) -> None:
    x, y = rows(ds, dt)
    swiglu, geglu = PLAIN, replace(PLAIN, activation="geglu")
    for sides in ((swiglu, geglu), (geglu, swiglu)):
        plain = linear(fit(recipe(swiglu, swiglu, 1.0), x, y)).matrix
        gated = linear(fit(recipe(*sides, 1.0), x, y)).matrix
        near = array((x - x.mean(0)) @ plain.mT)
        for feature in range(dt):
            line = LinearRegression().fit(near[:, [feature]], array(y[:, feature]))
            expected = plain[feature] * float(line.coef_[0])
            torch.testing.assert_close(gated[feature], expected, rtol=1e-4, atol=1e-5)


def test_a_prediction_that_does_not_vary_has_gain_1() -> None:
    x, y = rows(4, 3)
    assert gains(Moments.of(x, y), torch.zeros(3, 4).double()).tolist() == [1, 1, 1]


# --- all of them


@pytest.mark.parametrize("site", ["residual", "values"])
def test_however_composed_r2_is_that_of_rows_held_out(site: str) -> None:
    source = replace(PLAIN, norm="layer", site=site)
    target = replace(PLAIN, activation="geglu", site=site)
    aware = recipe(source, target)

    def oracle(x: Rows, y: Rows) -> Predict:
        given = torch.from_numpy(x), torch.from_numpy(y)
        found = linear(fit(aware, *given))
        return lambda points: array(found.transform(torch.from_numpy(points).float()))

    assert_agree(aware, oracle, 4, 4)
