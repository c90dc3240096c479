from itertools import combinations_with_replacement

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.layers import ROLES, agreement, depth_pairing, measured_pairing, role_layer


@pytest.mark.parametrize(
    ("layers", "expected"), [(30, [3, 17, 26]), (18, [2, 10, 15]), (1, [0, 0, 0])]
)
def test_role_layers_of_known_depths(layers: int, expected: list[int]) -> None:
    assert [role_layer(role, layers) for role in ROLES] == expected


@given(layers=st.integers(1, 200))
def test_role_layers_are_layers_in_order_of_depth(layers: int) -> None:
    found = [role_layer(role, layers) for role in ROLES]
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] < layers


def test_an_unknown_role_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="'middle': allowed are feature_extraction, representation"
    ):
        role_layer("middle", 12)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), ls=st.integers(1, 5), lt=st.integers(1, 5))
def test_pairing_is_the_best_of_all_paths_that_never_go_back(seed: int, ls: int, lt: int) -> None:
    matrix = torch.rand(ls, lt, generator=torch.Generator().manual_seed(seed))

    def total(path: tuple[int, ...] | list[int]) -> float:
        return float(sum(matrix[s, t] for t, s in enumerate(path)))

    pairing = measured_pairing(matrix)
    assert pairing == sorted(pairing)
    assert len(pairing) == lt
    best = max(total(path) for path in combinations_with_replacement(range(ls), lt))
    assert total(pairing) == pytest.approx(best)


def test_pairing_follows_a_planted_diagonal() -> None:
    assert measured_pairing(torch.eye(6)[:, ::2]) == [0, 2, 4]


@given(layers=st.integers(1, 60), target=st.integers(1, 60))
def test_pairing_by_depth_goes_from_end_to_end_and_never_back(layers: int, target: int) -> None:
    pairing = depth_pairing(layers, target)
    assert len(pairing) == target
    assert pairing == sorted(pairing)
    assert pairing[0] == 0
    assert pairing[-1] == (layers - 1 if target > 1 else 0)
    assert depth_pairing(layers, layers) == list(range(layers))


@given(layers=st.integers(2, 60), target=st.integers(2, 60))
def test_agreement_is_a_distance_from_the_pairing_by_depth(layers: int, target: int) -> None:
    assert agreement(depth_pairing(layers, target), layers).distance == 0
    backwards = agreement([0] * target, layers)
    assert 0 < backwards.distance <= 1
    assert 0 < backwards.chance < 0.5
    # Half of the depth on average, when everything is paired with the first layer.
    assert backwards.distance == pytest.approx(0.5, abs=0.5 / (layers - 1))
