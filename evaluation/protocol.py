"""The graduated protocol: the simplest way to carry that does as well as the best.

Legend of shapes: p prompts.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.retention import paired_bootstrap


def simplest(native: np.ndarray, tried: Mapping[str, np.ndarray], *, draws: int, seed: int) -> str:
    """The first way, in the order given, whose effect is as near to the native one as any.

    How far off a way is, is |1 - retention|: an effect that overshoots is as wrong as one that
    falls short. A way is as good as the best one where the 95 % interval of how much farther off
    it is includes zero (paired bootstrap over prompts).

    Args:
        native: [p] effects of the native vector, whose mean is not zero.
        tried: effects [p] of each way, simplest first.
    """
    off = {name: abs(1 - effects.mean() / native.mean()) for name, effects in tried.items()}
    best = min(off, key=off.__getitem__)
    for name, effects in tried.items():
        columns = np.stack((native, effects, tried[best]), axis=1)
        farther = paired_bootstrap(columns, _farther, draws=draws, seed=seed)
        if name == best or farther.low <= 0:
            return name
    raise AssertionError("the best way is as good as itself")


def _farther(means: np.ndarray) -> np.ndarray:
    """How much farther off the second column is than the third; the first is native."""
    real = np.where(means[:, 0] == 0, np.finfo(np.float64).tiny, means[:, 0])
    off = np.abs(1 - means[:, 1:] / real[:, None])
    return off[:, 0] - off[:, 1]


def stands_out(native: np.ndarray, by_chance: np.ndarray) -> float:
    """How rarely chance moves the behaviour as much as the native vector: a p-value in (0, 1].

    Args:
        native: [p] effects of the native vector.
        by_chance: [k, p] effects of vectors of the same length, made of the same texts with their
            sides drawn at random: a permutation test.
    """
    larger = np.abs(by_chance.mean(axis=1)) >= abs(native.mean())
    return float((1 + larger.sum()) / (1 + len(by_chance)))
