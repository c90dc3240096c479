"""Laws of changes of low rank, against the matrices they stand for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.updates import Update, from_arrays, to_arrays

SIZES = st.integers(1, 9)


def drawn(o: int, i: int, rank: int, seed: int = 0) -> Update:
    torch.manual_seed(seed)
    return Update(torch.randn(o, rank), torch.randn(rank, i))


@given(SIZES, SIZES, SIZES, st.integers(1, 12))
def test_rounding_is_the_truncated_svd_of_the_matrix(o: int, i: int, rank: int, to: int) -> None:
    whole = drawn(o, i, rank)
    rounded = whole.rounded(to)
    assert rounded.rank <= min(to, rank)
    torch.testing.assert_close(
        rounded.matrix, Update.of(whole.matrix, to).matrix, atol=1e-4, rtol=1e-4
    )


@given(SIZES, SIZES, st.integers(1, 12), st.sampled_from([1e-3, 0.1, 10.0]))
def test_a_regression_costs_least_of_all_of_its_rank(
    o: int, i: int, rank: int, strength: float
) -> None:
    torch.manual_seed(0)
    reads, wanted = torch.randn(40, i).double(), torch.randn(40, o).double()
    penalty = strength * float(reads.square().sum()) / i

    def cost(matrix: torch.Tensor) -> float:
        error = (reads @ matrix.mT.double() - wanted).square().sum()
        return float(error + penalty * matrix.double().square().sum())

    found = Update.regressed(reads, wanted, rank, strength)
    assert found.rank <= min(rank, o, i)
    # The whole ridge solution, and what cutting its fitted values costs beyond it.
    whole = torch.linalg.lstsq(
        torch.cat((reads, penalty**0.5 * torch.eye(i).double())),
        torch.cat((wanted, torch.zeros(i, o).double())),
    ).solution.mT
    fitted = torch.cat((reads, penalty**0.5 * torch.eye(i).double())) @ whole.mT
    dropped = float(torch.linalg.svdvals(fitted)[rank:].square().sum())
    assert cost(found.matrix) == pytest.approx(cost(whole) + dropped, rel=1e-4)
    assert cost(found.matrix) <= cost(Update.of(whole, rank).matrix) * (1 + 1e-5)


@given(SIZES, SIZES, st.lists(SIZES, min_size=1, max_size=4))
def test_a_total_is_the_sum_of_the_matrices(o: int, i: int, ranks: list[int]) -> None:
    parts = [drawn(o, i, rank, seed) for seed, rank in enumerate(ranks)]
    total = Update.total(parts)
    assert (total.rank, total.shape) == (sum(ranks), (o, i))
    torch.testing.assert_close(total.matrix, sum(each.matrix for each in parts))


@given(SIZES, SIZES, SIZES, st.floats(-3, 3))
def test_the_norm_is_that_of_the_matrix(o: int, i: int, rank: int, factor: float) -> None:
    scaled = drawn(o, i, rank).scaled(factor)
    assert scaled.norm == pytest.approx(float(scaled.matrix.norm()), rel=1e-4, abs=1e-6)


def test_arrays_of_updates_are_those_updates() -> None:
    updates = {"queries.0": drawn(3, 4, 2), "up.11": drawn(5, 4, 1)}
    arrays = to_arrays(updates)
    assert list(arrays) == ["queries.0.up", "queries.0.down", "up.11.up", "up.11.down"]
    again = from_arrays(arrays | {"held_out": arrays["up.11.up"]})
    assert list(again) == list(updates)
    for place, update in again.items():
        assert update.up.equal(updates[place].up)
        assert update.down.equal(updates[place].down)
