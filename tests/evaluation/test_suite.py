"""What a behaviour is made of, and the one number it becomes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evaluation.suite import slope

distinct = st.lists(st.floats(-2, 2), min_size=2, max_size=7).filter(
    lambda strengths: np.std(strengths) > 1e-2
)


@given(strengths=distinct, prompts=st.integers(1, 5), data=st.data())
def test_the_slope_is_that_of_a_fitted_line(
    strengths: list[float], prompts: int, data: st.DataObject
) -> None:
    x = np.array(strengths)
    shape = (len(x), prompts)
    odds = data.draw(arrays.arrays(np.float64, shape, elements=st.floats(-20, 20)))
    oracle = np.polyfit(x, odds, 1)[0]
    np.testing.assert_allclose(slope(odds, x), oracle, rtol=1e-6, atol=1e-6)


@given(
    strengths=distinct,
    rise=st.floats(-9, 9),
    level=st.floats(-9, 9),
    order=st.randoms(use_true_random=False),
)
def test_a_straight_line_has_its_own_slope_whatever_its_level_and_order(
    strengths: list[float], rise: float, level: float, order: np.random.Generator
) -> None:
    order.shuffle(strengths)
    x = np.array(strengths)
    odds = np.stack((level + rise * x, rise * x, np.full_like(x, level)), axis=1)
    np.testing.assert_allclose(slope(odds, x), [rise, rise, 0], atol=1e-8)


@given(odds=arrays.arrays(np.float64, (2, 4), elements=st.floats(-20, 20)))
def test_of_two_opposite_strengths_it_is_half_the_difference(odds: np.ndarray) -> None:
    np.testing.assert_allclose(
        slope(odds, np.array([0.5, -0.5])), (odds[0] - odds[1]) / 1.0, atol=1e-12
    )
