"""Maps for each expert: on rows that a router has shared out.

Shapes: n rows, ds source width, dt target width, e experts.
"""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from alignment.anatomy import Anatomy
from alignment.experts import Experts, routes
from alignment.fitted import Fitted, Part
from alignment.fitters import FITTERS
from alignment.fitters.average_expert import AverageExpert
from alignment.fitters.dominant_expert import DominantExpert
from alignment.fitters.ridge import Ridge as RidgeFitter
from alignment.fitters.routed import Routed
from alignment.maps import Affine, Mixture
from alignment.moments import FoldedMoments, Moments
from alignment.samples import FoldedRows, Sample
from tests.alignment.fitters.oracle import FOLDS, array, normal

KINDS = (Routed, AverageExpert, DominantExpert)
DENSE = Anatomy(8, 3, 4, 2, 2, "rms", "swiglu")
every_kind = pytest.mark.parametrize("kind", KINDS)


def shared_out(n: int = 600, ds: int = 6, dt: int = 5, e: int = 3) -> tuple[Sample, Tensor]:
    """Rows of which each expert maps its own; whose turn it is can be told from the source."""
    x = normal(0, n, ds)
    decided = (4 * x @ normal(1, ds, e)).argmax(1)
    planted = normal(2, e, dt, ds)
    y = torch.einsum("nts,ns->nt", planted[decided], x) + 0.1 * normal(3, n, dt)
    chosen = torch.nn.functional.one_hot(decided, e).float()
    return Sample.of(x, y, y_routes=0.5 * chosen), planted  # not all of the weight is given out


def fit(recipe: Routed | RidgeFitter, rows: Sample, thin: int = 1) -> Fitted:
    ids = np.arange(len(rows)) % FOLDS
    few = FoldedRows.of_sample(rows.at(torch.arange(0, len(rows), thin)), ids[::thin], FOLDS)
    return recipe.fit(FoldedMoments.of_rows(rows.x, rows.y, ids, FOLDS), few)


def part(rows: Sample) -> Part:
    return Part(Moments.of(rows.x, rows.y), rows)


def test_each_expert_has_its_own_map_and_the_gate_tells_whose_turn_it_is() -> None:
    rows, planted = shared_out()
    found, base = fit(Routed(pulls=(1e-3, 1.0)), rows), fit(RidgeFitter(), rows)
    assert isinstance(found.map, Mixture)
    assert base.held_out_r2 < 0.7 < 0.85 < found.held_out_r2
    assert found.chosen["pull"] == 1e-3
    torch.testing.assert_close(found.map.weight.double(), planted, rtol=0, atol=0.1)
    assert rows.y_routes is not None
    told = found.map.shares(rows.x).argmax(1)
    assert (told == rows.y_routes.argmax(1)).double().mean() > 0.9
    assert found.facts["experts"] == 3


def test_linear_maps_of_experts_are_their_mean_or_that_of_the_busiest() -> None:
    rows, planted = shared_out()
    assert rows.y_routes is not None
    share = 2 * rows.y_routes.double().mean(0)
    recipes = (of(lambdas=(1e-6,), pulls=(1e-6,)) for of in (AverageExpert, DominantExpert))
    average, dominant = (fit(recipe, rows).map for recipe in recipes)
    assert isinstance(average, Affine)
    assert isinstance(dominant, Affine)
    mean = torch.einsum("e,ets->ts", share, planted)
    torch.testing.assert_close(average.weight.double(), mean, rtol=0, atol=0.05)
    busiest = planted[int(share.argmax())]
    torch.testing.assert_close(dominant.weight.double(), busiest, rtol=0, atol=0.05)


@every_kind
@pytest.mark.parametrize("thin", [1, 4])
def test_a_large_pull_leaves_ridge(kind: type[Routed], thin: int) -> None:
    """Judged on all rows, however few are in the sample."""
    rows, _ = shared_out()
    found = fit(kind(lambdas=(0.1,), pulls=(1e9,)), rows, thin)
    base = fit(RidgeFitter((0.1,)), rows)
    assert found.held_out_r2 == pytest.approx(base.held_out_r2, abs=1e-6)
    for carry in ("transform", "pushforward"):
        reached, wanted = (getattr(each.map, carry)(rows.x) for each in (found, base))
        torch.testing.assert_close(reached, wanted, rtol=0, atol=1e-4)


@every_kind
def test_held_out_r2_is_that_of_the_rows(kind: type[Routed]) -> None:
    rows, _ = shared_out(240)
    fitted = fit(kind(), rows)
    recipe, ids = kind().settled(fitted.chosen), torch.arange(240) % FOLDS
    error = spread = 0.0
    for fold in range(FOLDS):
        kept, held = (rows.at(torch.nonzero(which)[:, 0]) for which in (ids != fold, ids == fold))
        learned = recipe.learn(part(kept), *fitted.chosen.values())
        error += float((held.y - learned.transform(held.x)).square().sum())
        spread += float((held.y - kept.y.mean(0)).square().sum())
    assert fitted.held_out_r2 == pytest.approx(1 - error / spread, abs=1e-4)


@every_kind
def test_neither_the_order_of_rows_nor_of_a_swap_matters(kind: type[Routed]) -> None:
    rows, _ = shared_out(240)
    order = torch.from_numpy(np.random.default_rng(0).permutation(240))
    same = kind(lambdas=(0.01,), pulls=(0.1,))
    found = fit(same, rows).map
    again = same.learn(part(rows.at(order)), 0.01, 0.1)
    torch.testing.assert_close(found.transform(rows.x), again.transform(rows.x), atol=1e-3, rtol=0)
    # Of a dense target the source's router is asked.
    swapped = Sample(rows.x, rows.y, x_routes=rows.y_routes)
    assert fit(same, swapped).map.to_bytes() == found.to_bytes()


def test_experts_are_those_of_scikit_learn_on_weighted_rows() -> None:
    rows, _ = shared_out()
    soft = Sample(rows.x, rows.y, y_routes=normal(7, len(rows), 3).softmax(1).float())
    share = routes(soft)
    assert share is not None
    experts = Experts(part(soft), 1e-2)
    base = torch.zeros(5, 6, dtype=torch.float64)
    weights = experts.weights(base, 0.3)
    biases = experts.biases(base, weights, 0.3)
    x, y = array(rows.x.double()), array(rows.y.double())
    for e in range(3):
        by = array(share[:, e])
        mean = np.average(x, axis=0, weights=by)
        unit = np.average((x - mean) ** 2, axis=0, weights=by).mean()
        oracle = Ridge(alpha=0.3 * unit * by.sum()).fit(x, y, sample_weight=by)
        np.testing.assert_allclose(weights[e].numpy(), oracle.coef_, rtol=1e-4, atol=1e-5)
        # Means too are pulled: from that of all rows towards the expert's.
        reached = weights[e].numpy() @ mean + biases[e].numpy()
        wanted = (0.3 * y.mean(0) + np.average(y, axis=0, weights=by)) / 1.3
        np.testing.assert_allclose(reached, wanted, rtol=1e-4, atol=1e-5)


def test_the_gate_is_that_of_scikit_learn() -> None:
    rows, _ = shared_out()
    assert rows.y_routes is not None
    given = part(rows)
    gate = Experts(given, 1e-2).gate
    spectrum = Experts(given, 1e-2).spectrum
    centred = rows.x.double() - given.moments.mean_x
    white = array(centred @ spectrum.vectors * spectrum.inverse.sqrt())
    oracle = LogisticRegression(C=1 / (1e-2 * len(rows)), tol=1e-10, max_iter=10_000)
    oracle.fit(white, rows.y_routes.argmax(1).numpy())
    ours = (rows.x.double() @ gate.weight.mT + gate.bias).softmax(1).numpy()
    np.testing.assert_allclose(ours, oracle.predict_proba(white), atol=1e-4)


@every_kind
def test_an_expert_that_is_never_asked_does_no_harm(kind: type[Routed]) -> None:
    rows, _ = shared_out()
    assert rows.y_routes is not None
    idle = torch.cat((rows.y_routes, torch.zeros(len(rows), 1)), 1)
    found = fit(kind(), Sample(rows.x, rows.y, y_routes=idle))
    assert found.map.transform(rows.x).isfinite().all()
    assert found.held_out_r2 == pytest.approx(fit(kind(), rows).held_out_r2, abs=1e-3)


@every_kind
def test_they_are_for_pairs_with_a_sparse_model(kind: type[Routed]) -> None:
    sparse = Anatomy(8, 3, 4, 2, 2, "rms", "swiglu", sparse=True)
    name = kind().name
    applies = partial(FITTERS[name].applies, source_width=8, target_width=8)
    assert applies(kind.between(DENSE, sparse))
    assert applies(kind.between(sparse, DENSE))
    assert not applies(kind.between(DENSE, DENSE))
