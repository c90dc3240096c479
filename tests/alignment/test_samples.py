import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.samples import FoldedRows, Sample


def sample(n: int) -> Sample:
    x = torch.arange(2.0 * n).reshape(n, 2)
    return Sample(x, -x[:, :1], y_routes=10 * x)


@given(n=st.integers(0, 50), most=st.integers(0, 60))
def test_thinned_rows_are_evenly_spaced_and_line_up(n: int, most: int) -> None:
    thin = sample(n).thinned(most)
    assert len(thin) == min(n, most)
    assert torch.equal(thin.y, -thin.x[:, :1])
    assert thin.y_routes is not None
    assert torch.equal(thin.y_routes, 10 * thin.x)
    gaps = thin.x[:, 0].diff()
    assert not len(gaps) or gaps.max() - gaps.min() <= 2  # of one row more


def test_crossed_rows_are_the_same_rows_paired_otherwise() -> None:
    some = sample(200)
    crossed = some.crossed(3, 1)
    assert torch.equal(crossed.x, some.x)
    assert torch.equal(crossed.y.sort(0).values, some.y.sort(0).values)
    assert (crossed.y == some.y).float().mean() < 0.05
    assert torch.equal(some.crossed(3, 1).y, crossed.y)
    assert not torch.equal(some.crossed(3, 2).y, crossed.y)
    assert crossed.y_routes is not None
    assert torch.equal(crossed.y_routes[:, :1], -10 * crossed.y)  # they go with the target


def test_joined_and_swapped() -> None:
    both = Sample.joined([sample(3), sample(2), Sample.none(2, 1)])
    assert len(both) == 5
    assert torch.equal(both.swap().x, both.y)
    assert torch.equal(both.swap().y, both.x)
    assert both.swap().y_routes is None
    assert both.swap().x_routes is both.y_routes is not None


def test_folds_share_out_the_rows_in_float32() -> None:
    some, ids = sample(10), np.arange(10) % 3
    folds = FoldedRows.of_rows(some.x.double(), some.y.double(), ids, 4).folds
    assert [len(fold) for fold in folds] == [4, 3, 3, 0]
    for fold, rows in enumerate(folds):
        assert rows.x.dtype == rows.y.dtype == torch.float32
        assert torch.equal(rows.x, some.x[ids == fold])


def test_rows_that_do_not_line_up_are_refused() -> None:
    with pytest.raises(AssertionError, match="the rows do not line up"):
        Sample(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(AssertionError, match="the rows do not line up"):
        Sample(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(4, 2))
