"""How heads are told out: by planted layouts, and against ordinary least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment.cache_fit import NEAR_LAMBDAS, Fit, fit_caches
from alignment.cache_heads import fit_heads, merged, split
from alignment.cache_map import CacheMoments, Reduction

WIDE, OUT = 4, 6  # features of a head of the source, and of the target
FITTED, HELD = slice(0, 600), slice(600, 800)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fit(x: Tensor, y: Tensor, *, wide: int = WIDE) -> dict[str, Fit]:
    reduced = Reduction.of(x[FITTED])
    training, held = (CacheMoments.of(reduced(x[some]), y[some]) for some in (FITTED, HELD))
    learned = fit_caches(training, held, {"keys.0": reduced}, {"keys.1": y.shape[1]}, NEAR_LAMBDAS)
    return {
        "learned": learned,
        **fit_heads(training, held, ("keys.0", reduced), "keys.1", (wide, OUT)),
    }


def told(found: dict[str, Fit]) -> dict[str, float]:
    return {scheme: each.held_out_r2["keys.1"] for scheme, each in found.items()}


def by_head(x: Tensor, order: list[int]) -> Tensor:
    """The target's heads, each out of one head of the source by a map of its own, and noise."""
    heads = x.unflatten(1, (-1, WIDE))
    parts = [heads[:, one] @ normal(30 + n, WIDE, OUT) + n for n, one in enumerate(order)]
    return torch.cat(parts, 1) + 0.01 * normal(40, len(x), OUT * len(order))


def test_heads_in_their_order_are_found_by_a_split_and_others_are_not() -> None:
    x = normal(0, 800, 3 * WIDE)
    assert min(told(fit(x, by_head(x, [0, 1, 2]))).values()) > 0.99
    swapped = told(fit(x, by_head(x, [2, 0, 1])))
    assert swapped["split"] < 0.1
    assert swapped["learned"] > 0.99
    assert swapped["merged"] > 0.99  # the one head that tells of it has all the weight


@pytest.mark.parametrize("scheme", ["split", "merged"])
def test_a_map_is_what_least_squares_make_of_what_its_head_reads(scheme: str) -> None:
    x, noise = normal(1, 800, 2 * WIDE), normal(2, 800, 2 * OUT)
    y = x @ normal(3, 2 * WIDE, 2 * OUT) + 0.1 * noise
    found = fit(x, y)[scheme]
    made = found.map.transform({"keys.0": x[HELD]})["keys.1"]
    if scheme == "split":
        for head in range(2):
            some, of = slice(head * WIDE, (head + 1) * WIDE), slice(head * OUT, (head + 1) * OUT)
            read = torch.cat((x[:, some], torch.ones(800, 1)), 1)  # λ chosen, all rows are fitted
            expected = (read @ torch.linalg.lstsq(read, y[:, of]).solution)[HELD]
            # But for what λ shrinks.
            assert (made[:, of] - expected).norm() < 0.05 * expected.norm()
    rest = (y[HELD] - made).square().sum()
    whole = (y[HELD] - y[FITTED].mean(0)).square().sum()
    assert found.held_out_r2["keys.1"] == pytest.approx(float(1 - rest / whole), abs=0.01)


def test_where_the_source_has_one_head_all_schemes_read_it() -> None:
    x = normal(5, 800, WIDE)
    found = told(fit(x, by_head(torch.cat((x, x), 1), [0, 1])))
    assert min(found.values()) > 0.99


def test_a_layer_that_is_not_made_of_such_heads_has_a_learned_layout_alone() -> None:
    x = normal(6, 800, 3 * WIDE)
    assert list(fit(x, by_head(x, [0, 1, 2]), wide=5)) == ["learned"]


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_split_leaves_no_head_out_and_each_gets_some(ours: int, theirs: int) -> None:
    reads = [split(ours, head, theirs) for head in range(theirs)]
    assert all(len(each) for each in reads)
    used = torch.cat(reads).sum(0)
    assert bool((used >= 1).all())
    if ours % theirs == 0 or theirs % ours == 0:
        assert {len(each) for each in reads} == {max(1, ours // theirs)}


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_a_merge_is_a_mean(r2: list[float]) -> None:
    (weights,) = merged(torch.tensor(r2, dtype=torch.float64))
    assert float(weights.sum()) == pytest.approx(1)
    assert bool((weights >= 0).all())
    if max(r2) > 0:
        assert all(weights[at] == 0 for at in np.flatnonzero(np.array(r2) <= 0))
