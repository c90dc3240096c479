"""How often a judge is wrong, with an interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from evaluation.judge import error_rate
from evaluation.labelled import Labelled, parted, tweets
from evaluation.text_classifier import train

SIGNS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.sampled_from((-1.0, 0.0, 0.4))),
        arrays(np.float64, n, elements=st.sampled_from((-2.0, 3.0))),
    )
)


@given(SIGNS)
def test_the_rate_is_of_wrong_signs_and_its_interval_is_wilsons(
    both: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, sides = both
    found = error_rate("made up", scores, sides)
    n, wrong = len(scores), int((scores * sides <= 0).sum())
    assert (found.count, found.rate.value) == (n, wrong / n)
    assert found.silent == (scores == 0).mean()
    # Wilson's interval holds the rates p from which the found one is 1.96 standard errors away.
    z = norm.ppf(0.975)
    for p in (found.rate.low, found.rate.high):
        assert (wrong / n - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, abs=1e-9)


def test_a_classifier_learns_sides_and_is_silent_about_the_unknown() -> None:
    good = [Labelled(f"the {thing} was lovely", 1.5, thing) for thing in ("tea", "bus", "sea")]
    bad = [Labelled(f"the {thing} was dreadful", -0.5, thing) for thing in ("tea", "bus", "sea")]
    judge = train(good + bad)
    high, low, unknown = judge.score(["lovely weather", "dreadful weather", "日本"])
    assert high > 0 > low
    assert unknown == 0
    assert judge.score([]).shape == (0,)


def test_the_same_texts_make_the_same_classifier() -> None:
    learnt, held_out = parted(row for row in tweets() if row.label)
    first, second = (train(learnt[:800]).score([row.text for row in held_out]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
