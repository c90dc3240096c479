"""An effect as a judge of generated text sees it.

Legend of shapes: p prompts, g generations for each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evaluation.retention import (
    Interval,
    RetentionError,
    measure_retention,
    paired_bootstrap,
)


@dataclass(frozen=True)
class JudgedEffect:
    """Half the difference between what is generated at +strength and at -strength, as scored.

    Means over prompts with their 95 % intervals, in the unit of the scores. `retention` is
    (carried - base) / (native - base), None where native does nothing that the judge can tell.
    """

    base: Interval
    native: Interval
    carried: Interval
    control: Interval
    retention: Interval | None


def judged_effect(
    base: ArrayLike,
    native: ArrayLike,
    carried: ArrayLike,
    control: ArrayLike,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> JudgedEffect:
    """The effects that a judge tells, paired over the prompts.

    A judge that is wrong at times makes every effect smaller, and by the same factor if it is wrong
    as often about all of them: then retention stays what it is, and its interval is wider.

    Args:
        base: [2, p, g] scores of what the target writes untouched: at + and at -, which without a
            vector are two draws of the same, or the same texts twice.
        native: [2, p, g] with the vector made in the target, at +strength and then at -strength.
        carried: [2, p, g] with the vector carried in.
        control: [2, p, g] with random directions of the same length, several of them along g.
        draws: number of resamples of the prompts.
        seed: every interval is a function of the scores, the draws and the seed.

    Raises:
        RetentionError: prompts that differ in number, fewer than two, or scores not finite.
    """
    effects = [_effects(scores) for scores in (base, native, carried, control)]  # each [p]
    if len({len(each) for each in effects}) > 1:
        sizes = ", ".join(str(len(each)) for each in effects)
        raise RetentionError(
            f"base, native, carried and control must be of the same prompts, not {sizes} of them"
        )
    found = measure_retention(*effects[:3], draws=draws, seed=seed)
    alone = paired_bootstrap(effects[3][:, None], lambda of: of[:, 0], draws=draws, seed=seed)
    return JudgedEffect(found.base, found.native, found.carried, alone, found.retention)


def _effects(scores: ArrayLike) -> np.ndarray:
    array = np.asarray(scores, dtype=np.float64)
    assert array.ndim == 3, "scores are [2, p, g]"
    assert len(array) == 2, "scores are at + and at -"
    assert array.shape[2], "every prompt has a generation"
    plus, minus = array.mean(axis=2)
    return (plus - minus) / 2
