"""Retention: how much of what the target can do natively survives when it is carried in.

Legend of shapes: n items (prompts, texts), c columns measured on every item, b bootstrap draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BeforeValidator

CONFIDENCE = 0.95
BLOCK_ELEMENTS = 4_000_000  # resampling weights held at once, about 32 MB

Array = NDArray[np.float64]

# JSON has no NaN: it is written as null, and null is read as NaN.
Measured = Annotated[float, BeforeValidator(lambda number: np.nan if number is None else number)]


class RetentionError(ValueError):
    """Measurements that no retention can be computed from."""


@dataclass(frozen=True)
class Interval:
    """A point value with its 95 % interval, in the unit of what was measured."""

    value: Measured
    low: Measured
    high: Measured

    def includes(self, number: float) -> bool:
        return self.low <= number <= self.high


@dataclass(frozen=True)
class Retention:
    """Means over the items, and retention = (carried - base) / (native - base).

    `retention` is None where it is undefined: the 95 % interval of native - base includes zero, so
    that there is no effect a share could be taken of.
    """

    base: Interval
    native: Interval
    carried: Interval
    retention: Interval | None


class Level(StrEnum):
    """What a retention is worth, in words."""

    EXCELLENT = "Excellent"
    GOOD = "Good"
    ACCEPTABLE = "Acceptable"
    MARGINAL = "Marginal"
    POOR = "Poor"
    UNDEFINED = "Undefined"
    UNAVAILABLE = "Unavailable"


LEVEL_RANGES = {
    Level.EXCELLENT: "above 95 %",
    Level.GOOD: "90 to 95 %",
    Level.ACCEPTABLE: "85 to 90 %",
    Level.MARGINAL: "80 to 85 %",
    Level.POOR: "below 80 %",
    Level.UNDEFINED: "no native effect to take a share of",
    Level.UNAVAILABLE: "closed weights",
}


def level(retention: Interval | None) -> Level:
    """The level of a retention's point value; None, or NaN, is Undefined."""
    if retention is None or np.isnan(retention.value):
        return Level.UNDEFINED
    if retention.value > 0.95:
        return Level.EXCELLENT
    floors = ((0.90, Level.GOOD), (0.85, Level.ACCEPTABLE), (0.80, Level.MARGINAL))
    return next((name for floor, name in floors if retention.value >= floor), Level.POOR)


def paired_bootstrap(
    items: ArrayLike,
    statistic: Callable[[Array], Array],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic of column means over the same resampled items.

    Args:
        items: [n, c] measurements; row i is one item, so its columns are resampled together.
        statistic: takes means [b, c], gives [b]; vectorised over its first axis.
        draws: number of resamples.
        seed: the interval is a function of the items, the draws and the seed.

    Returns:
        The statistic of the plain means, with the 2.5 % and 97.5 % quantiles over the draws.

    Raises:
        RetentionError: fewer than two items, or values that are not finite.
    """
    return _interval(_means(np.asarray(items, dtype=np.float64), draws, seed), statistic)


def measure_retention(
    base: ArrayLike,
    native: ArrayLike,
    carried: ArrayLike,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Retention:
    """Retention of a carried cargo against the native one, paired over the items.

    Args:
        base: [n] the target alone.
        native: [n] the target with the cargo made in it, with the same data and effort.
        carried: [n] the target with the cargo carried in.
        draws: number of resamples.
        seed: every interval is a function of the measurements, the draws and the seed.

    Raises:
        RetentionError: lengths that differ, fewer than two items, or values that are not finite.
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (base, native, carried)]
    assert all(column.ndim == 1 for column in columns), "base, native and carried are [n]"
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns)
        raise RetentionError(
            f"base, native and carried must be the same items, not {sizes} of them"
        )
    means = _means(np.stack(columns, axis=1), draws, seed)  # [1 + b, 3]
    effect = _interval(means, lambda of: of[:, 1] - of[:, 0])
    return Retention(
        base=_interval(means, lambda of: of[:, 0]),
        native=_interval(means, lambda of: of[:, 1]),
        carried=_interval(means, lambda of: of[:, 2]),
        retention=None if effect.includes(0.0) else _interval(means, _share_of_native),
    )


def _share_of_native(means: Array) -> Array:
    effect = means[:, 1] - means[:, 0]
    # An effect below rounding is none: that resample carries nothing, rather than an infinity.
    real = np.abs(effect) > np.finfo(np.float64).eps * np.abs(means).max()
    return np.divide(means[:, 2] - means[:, 0], effect, where=real, out=np.zeros_like(effect))


def _interval(means: Array, statistic: Callable[[Array], Array]) -> Interval:
    values = statistic(means)  # [1 + b]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[1:], (tail, 1 - tail))
    return Interval(float(values[0]), float(low), float(high))


def _means(items: Array, draws: int, seed: int) -> Array:
    """Means [1 + b, c]: of the items as they are, then of n of them drawn with replacement."""
    assert items.ndim == 2, "items are [n, c]"
    assert draws > 0, "an interval needs draws"
    count = len(items)
    if count < 2:
        raise RetentionError(f"a bootstrap needs at least 2 items, and there are {count}")
    if not np.isfinite(items).all():
        broken = int((~np.isfinite(items)).any(axis=1).sum())
        raise RetentionError(f"{broken} of {count} items are not finite: nothing can be averaged")
    rng = np.random.default_rng(seed)
    block = max(1, min(draws, BLOCK_ELEMENTS // count))
    means = [items.mean(axis=0, keepdims=True)]
    for start in range(0, draws, block):
        size = min(block, draws - start)
        picks = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(picks.ravel(), minlength=size * count).astype(np.float64)
        means.append(weights.reshape(size, count) @ items / count)
    return np.concatenate(means)
