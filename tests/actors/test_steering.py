"""Steering vectors: lengths and random directions, without any model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial.distance import cosine as distance

from actors.cargo.steering import (
    carry,
    cosine,
    injection,
    random_directions,
)
from alignment.maps import Affine

WIDTH = 6
numbers = st.floats(-100, 100, width=32)
vectors = arrays.arrays(np.float32, WIDTH, elements=numbers)
long_enough = vectors.filter(lambda vector: np.linalg.norm(vector) > 1e-2)


@given(a=vectors, b=vectors, factor=st.floats(-4, 4, width=32))
def test_a_vector_is_carried_as_a_difference(a: np.ndarray, b: np.ndarray, factor: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, WIDTH, generator=generator)
    by = Affine(weight, torch.full((4,), 1e3))
    # The bias, large as it is, has no part in it, so that carrying is linear.
    np.testing.assert_allclose(carry(a, by), weight.numpy() @ a, rtol=1e-4, atol=1e-3)
    mixed = carry((a + np.float32(factor) * b).astype(np.float32), by)
    np.testing.assert_allclose(mixed, carry(a, by) + factor * carry(b, by), atol=2e-2)
    points = by.transform(torch.from_numpy(np.stack((a, b)))).double()
    np.testing.assert_allclose(
        carry((a - b).astype(np.float32), by), (points[0] - points[1]).numpy(), atol=2e-2
    )


@given(a=long_enough, b=long_enough)
def test_cosine_is_scipys(a: np.ndarray, b: np.ndarray) -> None:
    assert cosine(a, b) == pytest.approx(1 - distance(a, b), abs=1e-4)
    assert cosine(a, a) == pytest.approx(1, abs=1e-5)
    assert cosine(a, -3 * a) == pytest.approx(-1, abs=1e-5)


@given(a=vectors)
def test_cosine_with_nothing_is_nothing(a: np.ndarray) -> None:
    zero = np.zeros(WIDTH, dtype=np.float32)
    assert cosine(a, zero) == cosine(zero, a) == 0


@given(
    direction=long_enough,
    spread=st.floats(0.01, 1e3),
    strength=st.floats(-2, 2),
    factor=st.floats(0.25, 16),
)
def test_an_injection_is_as_long_as_it_is_told_whatever_its_direction(
    direction: np.ndarray, spread: float, strength: float, factor: float
) -> None:
    made = injection("residual.3", direction, spread, strength)
    assert (made.site, made.strength) == ("residual.3", strength)
    assert made.vector.dtype == np.float32
    assert np.linalg.norm(made.vector) == pytest.approx(spread, rel=1e-5)
    assert cosine(made.vector, direction) == pytest.approx(1, abs=1e-5)
    longer = injection("residual.3", (direction * np.float32(factor)), spread, strength)
    np.testing.assert_allclose(longer.vector, made.vector, rtol=1e-4, atol=1e-5 * spread)


def test_no_direction_injects_nothing() -> None:
    made = injection("mlp.0", np.zeros(WIDTH, dtype=np.float32), 3.0, 0.5)
    np.testing.assert_array_equal(made.vector, np.zeros(WIDTH))


@given(width=st.integers(2, 40), count=st.integers(1, 30), seed=st.integers(0, 1000))
def test_random_directions_are_units_that_the_seed_settles(
    width: int, count: int, seed: int
) -> None:
    drawn = random_directions(width, count, seed)
    assert drawn.shape == (count, width)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(drawn, random_directions(width, count, seed))
    assert not np.array_equal(drawn, random_directions(width, count, seed + 1))


def test_random_directions_favour_none() -> None:
    drawn = random_directions(3, 4000, 5)
    # On the sphere in three dimensions every coordinate is uniform (Archimedes).
    for axis in range(3):
        assert stats.kstest(drawn[:, axis], stats.uniform(-1, 2).cdf).pvalue > 1e-3
