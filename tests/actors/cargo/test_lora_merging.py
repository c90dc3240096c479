"""Sparse and merged adapters, against what the papers say of every number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.cargo.lora import Adapter
from actors.cargo.lora_merging import merged, sparsified
from actors.cargo.peft_files import AdapterError
from alignment.updates import Update

FULL = 6  # the rank at which nothing is rounded


def adapter(seed: int, rank: int = FULL) -> Adapter:
    torch.manual_seed(seed)
    places = ("queries.0", "down.0")
    return Adapter({p: Update(torch.randn(FULL, rank), torch.randn(rank, 8)) for p in places})


@given(st.sampled_from((0.5, 0.8, 0.9)), st.integers(0, 9))
def test_numbers_are_dropped_and_the_others_are_larger(share: float, seed: int) -> None:
    whole = adapter(seed)
    for which in ("random", "magnitude"):
        sparse = sparsified(whole, share, which, seed)
        for place, update in sparse.updates.items():
            before, after = whole.updates[place].matrix, update.matrix
            stays = after.abs() > 1e-4 * after.abs().max()
            torch.testing.assert_close(
                after[stays], before[stays] / (1 - share), atol=1e-3, rtol=1e-3
            )
            if which == "magnitude":
                assert int(stays.sum()) == int((1 - share) * before.numel())
                assert before[stays].abs().min() >= before[~stays].abs().max()
        again = sparsified(whole, share, which, seed)
        assert all(again.updates[p].up.equal(sparse.updates[p].up) for p in whole.updates)


def test_dropping_keeps_the_mean_and_the_rank() -> None:
    whole = adapter(0, rank=2)
    drawn = [sparsified(whole, 0.5, "random", seed).updates["down.0"] for seed in range(400)]
    assert all(each.rank == 2 for each in drawn)
    full = Adapter({"down.0": Update.of(whole.updates["down.0"].matrix, FULL)})
    mean = sum(
        sparsified(full, 0.5, "random", seed).updates["down.0"].matrix for seed in range(400)
    )
    scale = float(whole.updates["down.0"].matrix.abs().max())
    torch.testing.assert_close(mean / 400, whole.updates["down.0"].matrix, atol=0.2 * scale, rtol=0)


def test_several_are_summed_or_the_greater_sign_wins() -> None:
    one, other = (
        Adapter({"queries.0": Update(torch.ones(1, 1), torch.tensor([row]))})
        for row in ([4.0, -3.0, 0.1, 2.0], [1.0, 5.0, 0.2, -1.0])
    )
    summed = merged([one, other], [0.5, 2.0], "sum").updates["queries.0"].matrix
    torch.testing.assert_close(summed, torch.tensor([[4.0, 8.5, 0.45, -1.0]]))
    # The smallest of each are trimmed; where signs differ, the larger one alone counts.
    voted = merged([one, other], [1.0, 1.0], "ties", kept=0.75).updates["queries.0"].matrix
    torch.testing.assert_close(voted, torch.tensor([[2.5, 5.0, 0.0, 2.0]]))
    apart = Adapter({"down.1": one.updates["queries.0"]})
    assert set(merged([one, apart], [1.0, 1.0], "sum").updates) == {"queries.0", "down.1"}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(AdapterError, match="share of 1 to drop"):
        sparsified(adapter(0), 1.0, "random")
    with pytest.raises(AdapterError, match="1 adapters and 2 weights"):
        merged([adapter(0)], [1.0, 2.0], "sum")
