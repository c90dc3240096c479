"""The rule by which a way to carry is chosen, and when an effect is more than chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.protocol import simplest, stands_out

SETTINGS = {"draws": 400, "seed": 0}
PROMPTS = 40


def effects(share: float, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Of a way that carries this share of a native effect of 2, on average."""
    drawn = np.random.default_rng(seed).normal(0, noise, PROMPTS)
    return 2 * share + drawn - drawn.mean()


NATIVE = effects(1.0, 0.3, seed=9)


def test_the_simplest_is_taken_while_it_is_as_good_as_the_best() -> None:
    tried = {"direct": effects(0.1), "linear": effects(0.94, 0.9), "trained": effects(0.96, 0.9, 1)}
    assert simplest(NATIVE, tried, **SETTINGS) == "linear"


def test_and_passed_over_where_it_is_worse_beyond_doubt() -> None:
    tried = {"direct": effects(0.1), "linear": effects(0.7), "trained": effects(0.99)}
    assert simplest(NATIVE, tried, **SETTINGS) == "trained"


def test_an_overshoot_is_as_far_off_as_a_shortfall() -> None:
    assert (
        simplest(NATIVE, {"direct": effects(3.0), "linear": effects(0.9)}, **SETTINGS) == "linear"
    )


@given(shares=st.lists(st.floats(-1, 3), min_size=1, max_size=5), size=st.floats(0.1, 10))
def test_the_unit_of_the_effect_does_not_matter(shares: list[float], size: float) -> None:
    tried = {f"way {number}": effects(share, seed=number) for number, share in enumerate(shares)}
    larger = {name: size * of for name, of in tried.items()}
    assert simplest(NATIVE, tried, **SETTINGS) == simplest(size * NATIVE, larger, **SETTINGS)


def test_an_effect_stands_out_from_random_directions_or_does_not() -> None:
    random = np.random.default_rng(0).normal(0, 0.5, (19, 1)).repeat(PROMPTS, axis=1)
    assert stands_out(NATIVE, random) == pytest.approx(1 / 20)
    assert stands_out(-NATIVE, random) == pytest.approx(1 / 20)
    assert stands_out(0 * NATIVE, random) == 1.0
