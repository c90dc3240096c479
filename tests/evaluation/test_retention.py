"""Laws of the metric, and how often its interval holds the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import bootstrap

from evaluation.retention import (
    Interval,
    Level,
    RetentionError,
    level,
    measure_retention,
    paired_bootstrap,
)

ITEMS = arrays(np.float64, (20, 3), elements=st.floats(-10, 10, allow_subnormal=False))
WITH_EFFECT = ITEMS.map(lambda items: items + np.array([0.0, 25.0, 10.0]))  # native is far away


def _simulated(rng: np.random.Generator, count: int, kept: float) -> tuple[np.ndarray, ...]:
    base = rng.normal(0, 1, count)
    effect = rng.normal(3, 0.8, count)
    return base, base + effect, base + kept * effect + rng.normal(0, 0.4, count)


@given(WITH_EFFECT, st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=60)
def test_it_has_no_unit_and_no_origin(items: np.ndarray, scale: float, shift: float) -> None:
    plain = measure_retention(*items.T, draws=200).retention
    moved = measure_retention(*(items * scale + shift).T, draws=200).retention
    assert plain is not None
    assert moved is not None
    for name in ("value", "low", "high"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), rel=1e-6, abs=1e-6)


@given(WITH_EFFECT)
@settings(max_examples=60)
def test_native_keeps_all_and_base_keeps_nothing(items: np.ndarray) -> None:
    base, native, _ = items.T
    for carried, kept in ((native, 1.0), (base, 0.0)):
        found = measure_retention(base, native, carried, draws=200)
        assert found.retention is not None
        ends = (found.retention.value, found.retention.low, found.retention.high)
        assert ends == pytest.approx((kept, kept, kept))


@given(ITEMS, st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_it_is_a_function_of_items_and_seed(items: np.ndarray, seed: int) -> None:
    first = measure_retention(*items.T, draws=100, seed=seed)
    assert measure_retention(*items.T, draws=100, seed=seed) == first
    for interval in (first.base, first.native, first.carried):
        assert interval.low <= interval.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(200):
        found = measure_retention(*_simulated(rng, 60, 0.9), draws=400, seed=seed)
        assert found.retention is not None
        held += found.retention.includes(0.9)
    assert 0.89 <= held / 200 <= 0.985


def test_it_agrees_with_an_independent_bootstrap() -> None:
    base, native, carried = _simulated(np.random.default_rng(1), 80, 0.8)

    def share(b: np.ndarray, n: np.ndarray, c: np.ndarray, axis: int) -> np.ndarray:
        return (c.mean(axis) - b.mean(axis)) / (n.mean(axis) - b.mean(axis))

    theirs = bootstrap(
        (base, native, carried),
        share,
        paired=True,
        method="percentile",
        n_resamples=8000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    ours = measure_retention(base, native, carried, draws=8000).retention
    assert ours is not None
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)


def test_no_native_effect_leaves_it_undefined() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (50, 3))
    found = measure_retention(*noise.T)
    assert found.retention is None
    assert level(found.retention) is Level.UNDEFINED
    same = np.ones(10)
    assert measure_retention(same, same, same).retention is None


def test_an_effect_downwards_is_an_effect() -> None:
    base, native, carried = _simulated(np.random.default_rng(3), 100, 0.7)
    up = measure_retention(base, native, carried).retention
    down = measure_retention(-base, -native, -carried).retention
    assert up is not None
    assert down is not None
    assert down.value == pytest.approx(up.value)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    items = np.random.default_rng(0).normal(size=(40, 2))

    def gap(means: np.ndarray) -> np.ndarray:
        return means[:, 1] - means[:, 0]

    whole = paired_bootstrap(items, gap, draws=300)
    monkeypatch.setattr("evaluation.retention.BLOCK_ELEMENTS", 1000)
    assert paired_bootstrap(items, gap, draws=300) == whole


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (([1.0], [2.0], [3.0]), "at least 2 items, and there are 1"),
        (([1.0, 2.0], [1.0], [1.0, 2.0]), "the same items, not 2, 1, 2 of them"),
        (([1.0, np.nan], [1.0, 2.0], [1.0, np.inf]), "1 of 2 items are not finite"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    columns: tuple[list[float], ...], line: str
) -> None:
    with pytest.raises(RetentionError, match=line):
        measure_retention(*columns)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1.2, Level.EXCELLENT),
        (0.951, Level.EXCELLENT),
        (0.95, Level.GOOD),
        (0.9, Level.GOOD),
        (0.85, Level.ACCEPTABLE),
        (0.8, Level.MARGINAL),
        (0.799, Level.POOR),
        (-3.0, Level.POOR),
        (float("nan"), Level.UNDEFINED),
    ],
)
def test_levels_have_edges(value: float, name: Level) -> None:
    assert level(Interval(value, value, value)) is name
