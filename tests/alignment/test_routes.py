"""Paths through other nodes, beside every path that there is."""

import math
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.routes import along, best_path, hub

NODES = "abcde"
HOPS = [*permutations(NODES, 2)]
graphs = st.dictionaries(st.sampled_from(HOPS), st.floats(-0.5, 1.5), max_size=len(HOPS))


def every_path(most: int) -> list[tuple[str, ...]]:
    """From a to e, by two hops up to so many."""
    return [
        ("a", *middles, "e")
        for count in range(1, most)
        for middles in permutations(NODES[1:-1], count)
    ]


@given(graphs, st.integers(2, 3))
def test_no_path_keeps_more_than_the_best(kept: dict[tuple[str, str], float], most: int) -> None:
    there = [
        path for path in every_path(most) if all(kept.get(hop, 0) > 0 for hop in pairwise(path))
    ]
    found = best_path(kept, "a", "e", most)
    assert (found is None) == (not there)
    if found is not None:
        assert found.nodes in there
        best = max(along(kept, path) for path in there)
        assert found.kept == pytest.approx(best)
        assert found.kept <= 1


def test_the_direct_hop_is_no_path() -> None:
    assert best_path({("a", "e"): 1.0}, "a", "e", 3) is None
    assert best_path({("a", "e"): 1.0, ("a", "b"): 0.5, ("b", "e"): 0.4}, "a", "e", 3) is not None


def test_a_hop_that_keeps_more_than_all_keeps_all() -> None:
    assert along({("a", "b"): 1.4, ("b", "e"): 0.5}, "abe") == 0.5
    assert along({("a", "b"): -0.4, ("b", "e"): 0.5}, "abe") == 0
    assert along({("a", "b"): 0.5}, "abe") == 0


def test_most_goes_through_the_hub() -> None:
    spokes: dict[tuple[str, str], float] = {hop: 0.9 if "c" in hop else 0.2 for hop in HOPS}
    assert hub(spokes) == "c"
    assert math.isclose(along(spokes, "ace"), 0.81)


def test_of_equal_paths_the_shorter_is_taken() -> None:
    found = best_path(dict.fromkeys(HOPS, 1.0), "a", "e", 3)
    assert found is not None
    assert len(found.nodes) == 3
