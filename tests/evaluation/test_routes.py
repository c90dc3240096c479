"""A route is recommended where it is better than the direct way beyond chance, and only there."""

import numpy as np
import pytest
from pydantic import ValidationError

from evaluation.routes import Route, route

KEY = ("here", "there", "steering", "sentiment")
PATH = ("here", "between", "there")
RNG = np.random.default_rng(0)
NATIVE = RNG.normal(4, 1, 60)


def made(direct: float, routed: float, noise: float = 0.3) -> Route:
    """Ways that keep such shares, with noise of their own."""
    one, other = (share * NATIVE + RNG.normal(0, noise, 60) for share in (direct, routed))
    others = {"through the shared hub": 0.1 * NATIVE}
    found = route(KEY, PATH, 0.5, NATIVE, one, other, others, draws=500, seed=0)
    assert found is not None
    return found


def test_it_is_recommended_only_where_it_is_better_beyond_chance() -> None:
    better, same, worse = made(0.5, 0.9), made(0.7, 0.7), made(0.9, 0.5)
    assert [each.recommended for each in (better, same, worse)] == [True, False, False]
    assert better.gain.value == pytest.approx(better.routed.value - better.direct.value)
    assert worse.gain.high < 0
    assert better.others[0].retention.value == pytest.approx(0.1)


def test_the_gain_is_paired_over_items() -> None:
    noise = RNG.normal(0, 3, 60)
    found = route(
        KEY, PATH, 0.5, NATIVE, 0.5 * NATIVE + noise, 0.6 * NATIVE + noise, {}, draws=500, seed=0
    )
    assert found is not None
    assert found.gain.high - found.gain.low < 0.01 < found.direct.high - found.direct.low
    assert found.recommended


def test_without_a_native_effect_there_is_no_route() -> None:
    nothing = RNG.normal(0, 1, 60)
    assert route(KEY, PATH, 0.5, nothing, NATIVE, NATIVE, {}, draws=500, seed=0) is None


def test_a_route_goes_through_another_model() -> None:
    with pytest.raises(ValidationError, match="a route goes through another model: here -> there"):
        Route.model_validate({**made(0.5, 0.9).model_dump(), "path": ("here", "there")})
