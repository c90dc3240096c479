import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.moments import BLOCK_ROWS, FoldedMoments, Moments, cross_moment

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=25)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(left: Moments, right: Moments, tolerance: float = 1e-6) -> None:
    for name, value in left.tensors().items():
        torch.testing.assert_close(value, right.tensors()[name], rtol=tolerance, atol=1e-5)


@quick
@given(seed=seeds, n=st.integers(2, 400), mean=st.floats(-1e3, 1e3), spread=st.floats(0.1, 1e3))
@example(seed=230295, n=2, mean=0.0, spread=1.0)
def test_float32_products_are_as_near_as_stated(
    seed: int, n: int, mean: float, spread: float
) -> None:
    x = normal(seed, n, 7) * spread + mean
    y = normal(seed + 1, n, 5)
    exact_x, exact_y = x.double(), y.double()
    near_x, near_y = exact_x - exact_x.mean(0), exact_y - exact_y.mean(0)
    bound = torch.outer(near_x.square().sum(0).sqrt(), near_y.square().sum(0).sqrt()) * 1e-6
    assert ((cross_moment(x, y) - exact_x.mT @ exact_y).abs() <= bound + 1e-9).all()


def test_a_mean_far_above_the_spread_loses_no_covariance() -> None:
    x = normal(0, 3000, 4) + 1000.0
    expected = torch.cov(x.double().mT, correction=0)
    torch.testing.assert_close(Moments.of(x, x).cov_x, expected, rtol=1e-5, atol=1e-6)


@quick
@given(seed=seeds, n=st.integers(0, 60), cut=st.integers(0, 60))
def test_chunking_and_order_do_not_matter(seed: int, n: int, cut: int) -> None:
    x, y = normal(seed, n, 4), normal(seed + 1, n, 3)
    whole = Moments.of(x, y)
    assert_close(Moments.of(x[:cut], y[:cut]) + Moments.of(x[cut:], y[cut:]), whole)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert_close(Moments.of(x[order], y[order]), whole)


def test_rows_beyond_one_block_are_all_counted() -> None:
    n = 2 * BLOCK_ROWS + 1
    x, y = normal(1, n, 3), normal(2, n, 2)
    torch.testing.assert_close(cross_moment(x, y), x.double().mT @ y.double(), rtol=1e-6, atol=1e-3)
    assert Moments.of(x, y).count == n


def test_means_and_covariances_are_those_of_numpy() -> None:
    x, y = normal(3, 50, 4).double(), normal(4, 50, 3).double()
    moments = Moments.of(x, y)
    joint = np.cov(np.hstack([x, y]), rowvar=False, bias=True)
    np.testing.assert_allclose(moments.cov_x, joint[:4, :4], atol=1e-12)
    np.testing.assert_allclose(moments.cov_xy, joint[:4, 4:], atol=1e-12)
    np.testing.assert_allclose(moments.cov_y, joint[4:, 4:], atol=1e-12)
    np.testing.assert_allclose(moments.mean_x, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(moments.mean_y, y.mean(0), atol=1e-12)


def test_a_weight_counts_as_so_many_rows() -> None:
    x, y = normal(5, 6, 4) + 3, normal(6, 6, 3)
    times = torch.tensor([1, 0, 2, 3, 1, 1])
    repeated = Moments.of(x.repeat_interleave(times, 0), y.repeat_interleave(times, 0))
    assert_close(Moments.of(x, y, times), repeated)


def test_zero_adds_nothing_and_minus_undoes_plus() -> None:
    some, more = (Moments.of(normal(s, 9, 4), normal(s + 1, 9, 3)) for s in (7, 8))
    assert_close(some + Moments.zero(4, 3), some)
    assert_close(some + more - more, some)


def test_swap_is_the_moments_of_swapped_rows() -> None:
    x, y = normal(9, 20, 4), normal(10, 20, 3)
    assert_close(Moments.of(x, y).swap(), Moments.of(y, x))


def test_rows_that_are_multiplied_or_cut_need_not_be_seen_again() -> None:
    x, y = normal(15, 40, 4).double() + 2, normal(16, 40, 3).double()
    left_x, left_y = normal(17, 5, 4).double(), normal(18, 2, 3).double()
    moments = Moments.of(x, y)
    assert_close(moments.through(left_x, left_y), Moments.of(x @ left_x.mT, y @ left_y.mT))
    weight = normal(19, 3, 4).double()
    assert_close(moments.less(weight), Moments.of(x, y - x @ weight.mT))
    some = moments.of_features(slice(1, 3), slice(0, 2))
    assert_close(some, Moments.of(x[:, 1:3], y[:, :2]))


def test_with_cross_keeps_the_margins() -> None:
    x, y = normal(11, 20, 4), normal(12, 20, 3)
    order = torch.arange(20).roll(1)
    other = Moments.of(x, y).with_cross(cross_moment(x, y[order]))
    assert_close(other, Moments.of(x, y[order]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_noticed(value: float) -> None:
    x = normal(13, 10, 4)
    assert Moments.of(x, x).is_finite()
    x[3, 2] = value
    assert not Moments.of(x, normal(14, 10, 3)).is_finite()


@quick
@given(seed=seeds, n=st.integers(1, 60), k=st.integers(2, 5))
def test_folds_share_out_the_rows(seed: int, n: int, k: int) -> None:
    x, y = normal(seed, n, 4), normal(seed + 1, n, 3)
    ids = np.random.default_rng(seed).integers(0, k, n)
    folded = FoldedMoments.of_rows(x, y, ids, k)
    assert_close(folded.total(), Moments.of(x, y))
    outside = torch.from_numpy(ids != 1)
    assert_close(folded.without(1), Moments.of(x[outside], y[outside]))
    assert_close((folded + folded).swap().total(), Moments.of(y, x) + Moments.of(y, x))


def test_moments_are_stored_bit_for_bit() -> None:
    moments = Moments.of(normal(1, 30, 4), normal(2, 30, 3)).swap()
    back = Moments.from_tensors(moments.tensors("a."), "a.")
    assert moments.count == back.count
    assert all(torch.equal(t, back.tensors()[name]) for name, t in moments.tensors().items())
