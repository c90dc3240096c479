"""Ways to carry that are trained, out of how well every item of a skill is done with each.

Shapes: m items.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.cells import Control, TrainedWay, controls
from evaluation.retention import Interval, Retention, measure_retention
from evaluation.skill import Skill

BASE, NATIVE = "base", "native"
Scores = Mapping[str, NDArray[np.float64]]  # [m], by what the target has on; more is better


@dataclass(frozen=True)
class Effort:
    """What was trained: its loss on held-out texts before any step and after each epoch, of which
    the best is kept, how many tokens were read for it, and how long that took."""

    losses: Sequence[float]
    tokens: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Judging:
    """Scores of a skill on held items and on test items, of the target alone, natively and by each
    way, on test of controls too; and by which draws intervals are found."""

    skill: Skill
    held: Scores
    test: Scores
    draws: int
    seed: int

    def measure(self, name: str) -> Retention:
        """Of test items, in the skill's own unit.

        Raises:
            RetentionError: fewer than two items, or scores that are not finite.
        """
        sign = -1.0 if self.skill.measure == "bits" else 1.0  # of bits less is better
        columns = (sign * self.test[each] for each in (BASE, NATIVE, name))
        return measure_retention(*columns, draws=self.draws, seed=self.seed)

    def share(self, name: str) -> Interval | None:
        """The retention alone."""
        return self.measure(name).retention

    def controls(self, names: Iterable[str]) -> tuple[Control, ...]:
        """Those of which there is a share."""
        return controls({name: self.share(name) for name in names})

    def way(self, name: str, effort: Effort) -> TrainedWay:
        """What one way cost, and what it keeps."""
        base, native, carried = (float(self.held[each].mean()) for each in (BASE, NATIVE, name))
        return TrainedWay(
            name=name,
            loss_before=effort.losses[0],
            loss_after=min(effort.losses[1:]),
            tokens=effort.tokens,
            seconds=effort.seconds,
            held=(carried - base) / (native - base) if native != base else math.nan,
            retention=self.share(name),
        )
