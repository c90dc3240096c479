"""Laws that every way to take a direction keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.contrast import DirectionError
from alignment.directions import DIRECTIONS

every_recipe = pytest.mark.parametrize("name", DIRECTIONS)
quick = settings(max_examples=10)
draws = given(seed=st.integers(0, 10**6), width=st.integers(2, 8))


def pairs(
    seed: int, width: int, n: int = 60, towards: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs around scattered places, 2 apart along a unit vector, with noise of their own.

    The places scatter unevenly, up to 30 along some feature, but not along the unit vector.
    """
    random = np.random.default_rng(seed)
    towards = planted(seed, width) if towards is None else towards
    places = random.standard_normal((n, width)) * np.geomspace(0.3, 30, width) + 5
    places -= np.outer(places @ towards, towards)
    noise = 0.5 * random.standard_normal((2, n, width))
    positive, negative = places + towards + noise[0], places - towards + noise[1]
    return positive.astype(np.float32), negative.astype(np.float32)


def planted(seed: int, width: int) -> np.ndarray:
    drawn = np.random.default_rng(seed + 1).standard_normal(width)
    return drawn / np.linalg.norm(drawn)


def take(name: str, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    return DIRECTIONS[name]().direction(positive, negative)


def assert_alike(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-3 * float(np.abs(right).max()))


@every_recipe
@quick
@draws
def test_float32_and_the_same_bits_again(name: str, seed: int, width: int) -> None:
    sides = pairs(seed, width)
    found = take(name, *sides)
    assert (found.shape, found.dtype) == ((width,), np.float32)
    assert found.tobytes() == take(name, *sides).tobytes()


@every_recipe
@quick
@draws
def test_a_planted_direction_is_recovered(name: str, seed: int, width: int) -> None:
    found = take(name, *pairs(seed, width, n=300))
    length = np.linalg.norm(found)
    assert found @ planted(seed, width) / length > 0.95
    assert length == pytest.approx(2, rel=0.15)


@every_recipe
@quick
@draws
def test_the_length_is_how_far_apart_the_sides_lie(name: str, seed: int, width: int) -> None:
    positive, negative = pairs(seed, width)
    found = take(name, positive, negative).astype(np.float64)
    unit = found / np.linalg.norm(found)
    apart = (positive @ unit).mean() - (negative @ unit).mean()
    assert np.linalg.norm(found) == pytest.approx(apart, rel=1e-4, abs=1e-4)


@every_recipe
@quick
@draws
def test_swapping_the_sides_turns_it_round(name: str, seed: int, width: int) -> None:
    positive, negative = pairs(seed, width)
    assert_alike(take(name, negative, positive), -take(name, positive, negative))


@every_recipe
@quick
@draws
def test_the_order_of_the_pairs_does_not_matter(name: str, seed: int, width: int) -> None:
    positive, negative = pairs(seed, width)
    order = np.random.default_rng(seed).permutation(len(positive))
    assert_alike(take(name, positive[order], negative[order]), take(name, positive, negative))


@every_recipe
@quick
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_the_origin_does_not_matter(name: str, seed: int, shift: float) -> None:
    positive, negative = pairs(seed, 5)
    by = np.float32(shift) * np.arange(5, dtype=np.float32)
    assert_alike(take(name, positive + by, negative + by), take(name, positive, negative))


@every_recipe
@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_it_scales_with_the_points(name: str, seed: int, scale: float) -> None:
    positive, negative = pairs(seed, 5)
    scaled = take(name, positive * np.float32(scale), negative * np.float32(scale))
    assert_alike(scaled / scale, take(name, positive, negative))


@every_recipe
def test_a_massive_feature_that_does_not_vary_has_no_part_in_it(name: str) -> None:
    positive, negative = pairs(3, 5)
    column = np.full((len(positive), 1), 12345.678, dtype=np.float32)
    found = take(name, np.hstack((column, positive)), np.hstack((column, negative)))
    assert found[0] == 0
    assert_alike(found[1:], take(name, positive, negative))


@every_recipe
@pytest.mark.parametrize("n", [2, 6])
def test_fewer_points_than_features(name: str, n: int) -> None:
    positive, negative = pairs(4, 30, n=n)
    found = take(name, positive, negative)
    assert np.isfinite(found).all()
    assert found @ (positive.mean(0) - negative.mean(0)) > 0


@pytest.mark.parametrize("name", ["difference_of_means", "probe"])
@quick
@given(seed=st.integers(0, 10**6), n=st.integers(40, 60))
def test_unpaired_sides_keep_the_laws_too(name: str, seed: int, n: int) -> None:
    positive, (_, negative) = pairs(seed, 3, n=n)[0], pairs(seed, 3, n=35)
    found = take(name, positive, negative)
    assert found @ planted(seed, 3) > 0
    assert_alike(take(name, negative, positive), -found)
    assert_alike(take(name, positive[::-1], negative), found)


def test_pairs_are_asked_for_where_they_are_needed() -> None:
    positive, negative = pairs(5, 4)
    with pytest.raises(DirectionError, match="60 positive, 59 negative"):
        take("principal_difference", positive, negative[:-1])


@every_recipe
def test_points_without_a_direction_are_refused(name: str) -> None:
    positive, negative = pairs(6, 4)
    with pytest.raises(DirectionError, match="the negative side needs at least 2 points, and has"):
        take(name, positive[:1].repeat(2, axis=0), negative[:1])
    with pytest.raises(DirectionError, match="do not differ"):
        take(name, positive, positive)
    with pytest.raises(DirectionError, match="do not differ"):
        take(name, positive[:2], positive[1::-1])
    uneven = (positive * np.geomspace(1e-6, 1e6, len(positive))[:, None]).astype(np.float32)
    with pytest.raises(DirectionError, match="do not differ"):  # but by rounding, in the sums
        take(name, uneven, uneven[np.random.default_rng(0).permutation(len(uneven))])
    positive[5, 1], positive[5, 2], positive[7, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(DirectionError, match="2 of 60 points on the positive side hold NaN"):
        take(name, positive, negative)


# --- sides drawn at random


@every_recipe
def test_by_chance_there_is_no_such_direction(name: str) -> None:
    sides = pairs(5, 8, n=200)
    drawn = DIRECTIONS[name]().by_chance(*sides, draws=12, seed=3)
    assert (drawn.shape, drawn.dtype) == ((12, 8), np.float32)
    again = DIRECTIONS[name]().by_chance(*sides, draws=12, seed=3)
    assert drawn.tobytes() == again.tobytes()
    along = drawn @ planted(5, 8) / np.linalg.norm(drawn, axis=1)
    assert np.abs(along).mean() < 0.4
    assert along.min() < 0 < along.max()
