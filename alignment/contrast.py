"""A concept as points on two sides, and the direction that leads from one side to the other.

Shapes: n positive and m negative points, d width.

Every recipe finds an axis; sign and length follow one rule for all of them, so that directions of
several recipes can stand beside each other. With u the unit vector of the axis, the direction is

    u * u·(mean of positive - mean of negative)

It points from negative to positive, and its length is how far apart the two sides lie along it, in
the units of the points. The difference of means keeps its own length, and no other recipe's
direction is longer. Residual streams have a few massive dimensions (arXiv 2402.17762), so sums are
float64, and what rounding leaves of a large mean is not taken for a difference.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class DirectionError(ValueError):
    """Points from which no direction can be taken, or a recipe that cannot be."""


@dataclass(frozen=True)
class Extractor(ABC):
    """A recipe: a frozen dataclass of hyperparameters (all with defaults), that takes a direction.

    Directions do not depend on the order of the points (pairs kept together) or on where the origin
    lies. Scaling all points scales the direction, and swapping the sides turns it round.
    """

    needs_pairs: ClassVar[bool] = False  # row i of one side against row i of the other

    def direction(self, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """The direction from negative [m, d] to positive [n, d], as float32 [d].

        Raises:
            DirectionError: fewer than 2 points on a side, NaN or infinity, sides that do not
                differ, or sides that are not paired where pairs are needed.
        """
        above, below = sides(positive, negative)
        if self.needs_pairs:
            require_pairs(above, below)
        axis = self.axis(above, below)
        return _along(axis, above, below).astype(np.float32)

    def by_chance(
        self, positive: np.ndarray, negative: np.ndarray, *, draws: int, seed: int
    ) -> np.ndarray:
        """Directions [draws, d] float32 of the same points, dealt out to the sides at random.

        What a direction is where the concept is not: the null of a permutation test. Pairs are
        broken up, since a pair that only changes sides still points along the concept.
        """
        generator = np.random.default_rng(seed)
        both, count = np.concatenate((positive, negative)), len(positive)
        dealt = (generator.permutation(both) for _ in range(draws))
        return np.stack([self.direction(each[:count], each[count:]) for each in dealt])

    @abstractmethod
    def axis(self, positive: Array, negative: Array) -> Array:
        """The line [d] that the direction lies on, of whatever sign and length; 0 for none."""


def sides(positive: np.ndarray, negative: np.ndarray) -> tuple[Array, Array]:
    """Both sides as float64. DirectionError for too few points, NaN or infinity."""
    assert positive.ndim == negative.ndim == 2, "points are [n, d]"
    assert positive.shape[1] == negative.shape[1], "both sides are points of one space"
    for side, points in (("positive", positive), ("negative", negative)):
        if len(points) < 2:
            raise DirectionError(f"the {side} side needs at least 2 points, and has {len(points)}")
        if broken := int((~np.isfinite(points)).any(axis=1).sum()):
            raise DirectionError(
                f"{broken} of {len(points)} points on the {side} side hold NaN or infinity"
            )
    return positive.astype(np.float64), negative.astype(np.float64)


def require_pairs(positive: Array, negative: Array) -> None:
    """DirectionError where the sides cannot be pairs."""
    if len(positive) != len(negative):
        raise DirectionError(
            f"pairs are needed, so both sides must have as many points: {len(positive)} positive, "
            f"{len(negative)} negative"
        )


def difference(positive: Array, negative: Array) -> Array:
    """Mean of positive less mean of negative, [d]."""
    return positive.mean(axis=0) - negative.mean(axis=0)


def _along(axis: Array, positive: Array, negative: Array) -> Array:
    apart = difference(positive, negative)
    reach = np.maximum(np.abs(positive).max(axis=0), np.abs(negative).max(axis=0))
    rounding = np.finfo(np.float64).eps * (len(positive) + len(negative))
    if abs(axis @ apart) <= rounding * (np.abs(axis) @ reach):
        raise DirectionError("the two sides do not differ: their means lie at one place")
    return axis * ((axis @ apart) / (axis @ axis))
