"""Shares of work that is cut into parts within parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.pace import heard, paced, part

trees = st.recursive(
    st.none(), lambda child: st.lists(child, min_size=1, max_size=4), max_leaves=20
)


def work(tree: list | None) -> None:
    """A loop in each item of a loop, as deep as the tree is."""
    for inner in paced(tree or []):
        work(inner)


@given(trees)
def test_shares_only_grow_up_to_the_whole(tree):
    shares: list[float] = []
    with heard(shares.append):
        work([tree])
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


@given(st.integers(1, 9), st.integers(1, 9))
def test_equal_parts_within_equal_parts(outer, inner):
    shares: list[float] = []
    with heard(shares.append):
        for _ in paced(range(outer)):
            for _ in paced(range(inner)):
                pass
    expected = [each / (outer * inner) for each in range(1, outer * inner + 1)]
    assert sorted({round(share, 9) for share in shares}) == pytest.approx(expected)


def test_a_loop_that_is_left_early_does_not_keep_listening():
    shares: list[float] = []
    with heard(shares.append), part(0.5, 1):
        for number in paced(range(10)):
            if number == 3:
                break
        for _ in paced(range(2)):
            pass
    assert shares == pytest.approx([0.55, 0.6, 0.65, 0.75, 1.0, 1.0])


def test_what_is_too_short_to_count_says_nothing():
    shares: list[float] = []
    with heard(shares.append), part(0, 0):
        work([None, None])
    assert set(shares) == {0}


def test_nobody_needs_to_listen():
    assert list(paced("abc")) == ["a", "b", "c"]
