"""What others assert: a band that follows the prior, and none where nobody asserts any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.cargos import CARGOS
from evaluation.expectation import Band, expected
from evaluation.retention import Level

SCORES = st.floats(0.01, 1)
CONTEXTS = st.floats(0, 6).map(lambda digits: round(10**digits))  # of every length alike


def middle(band: Band | None) -> float:
    assert band is not None
    return (band.low + band.high) / 2


@given(st.sampled_from(CARGOS), SCORES, CONTEXTS)
def test_a_band_is_a_range_of_shares(cargo: str, score: float, context: int) -> None:
    band = expected(cargo, score, context)
    assert band is None or 0 <= band.low <= band.high <= 1


@given(SCORES, SCORES, CONTEXTS)
def test_steering_rises_with_the_score(one: float, other: float, context: int) -> None:
    less, more = (expected("steering", score, context) for score in sorted((one, other)))
    assert less is not None
    assert more is not None
    assert less.low <= more.low
    assert less.high <= more.high


@given(st.floats(0.6, 1), CONTEXTS, CONTEXTS)
def test_a_cache_loses_with_the_context(score: float, one: int, other: int) -> None:
    short, long = (expected("kv_cache", score, context) for context in sorted((one, other)))
    assert middle(short) >= middle(long) - 1e-12


@given(st.floats(0.6, 1), st.floats(0.6, 1), CONTEXTS)
def test_a_cache_keeps_more_between_models_that_are_more_alike(
    one: float, other: float, context: int
) -> None:
    less, more = (expected("kv_cache", score, context) for score in sorted((one, other)))
    assert middle(less) <= middle(more) + 1e-12


@pytest.mark.parametrize(
    ("cargo", "score", "context", "low", "high"),
    [
        ("steering", 0.95, 2048, 0.85, 0.95),
        ("steering", 0.85, 2048, 0.70, 0.85),
        ("steering", 0.20, 2048, 0.05, 0.15),
        ("kv_cache", 0.85, 8_000, 0.93, 0.97),
        ("kv_cache", 0.85, 32_000, 0.92, 0.96),
        ("kv_cache", 0.70, 128_000, 0.86, 0.90),
        ("lora", 0.5, 2048, 0.02, 0.31),
    ],
)
def test_what_is_published_is_given_as_it_is(
    cargo: str, score: float, context: int, low: float, high: float
) -> None:
    band = expected(cargo, score, context)
    assert band is not None
    assert (band.low, band.high) == pytest.approx((low, high))


@given(SCORES, CONTEXTS)
def test_nothing_is_promised_where_nothing_is_published(score: float, context: int) -> None:
    assert expected("soft_prompt", score, context) is None
    assert (expected("kv_cache", score, context) is None) == (score < 0.6)


def test_a_band_has_the_level_of_its_middle() -> None:
    assert Band(0.90, 0.98).level is Level.GOOD
    assert Band(0.10, 0.20).level is Level.POOR
    assert str(Band(0.1, 0.255)) == "0.10 to 0.26"
