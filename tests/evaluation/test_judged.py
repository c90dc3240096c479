"""An effect as judges see it."""

import numpy as np
import pytest

from evaluation.judged import judged_effect
from evaluation.retention import RetentionError, measure_retention


def scored(seed: int, effect: float, prompts: int = 40, generations: int = 3) -> np.ndarray:
    """Scores [2, p, g] around +effect and -effect."""
    noise = np.random.default_rng(seed).uniform(-0.2, 0.2, (2, prompts, generations))
    return noise + np.array([effect, -effect])[:, None, None]


def test_it_is_half_the_difference_and_the_share_of_native() -> None:
    base, native, carried, control = (scored(i, e) for i, e in enumerate((0.0, 0.6, 0.3, 0.0)))
    found = judged_effect(base, native, carried, control, draws=400)
    assert found.base.includes(0)
    assert found.control.includes(0)
    assert found.native.value == pytest.approx(0.6, abs=0.05)
    assert found.retention is not None
    assert found.retention.includes(0.5)
    halves = [(each[0].mean(axis=1) - each[1].mean(axis=1)) / 2 for each in (base, native, carried)]
    assert found.retention == measure_retention(*halves, draws=400).retention


def test_a_judge_that_is_often_wrong_sees_less_of_all_and_the_same_share() -> None:
    arms = [scored(i, e) for i, e in enumerate((0.0, 0.6, 0.3, 0.0))]
    sure, unsure = (judged_effect(*(scale * arm for arm in arms)) for scale in (1.0, 0.4))
    assert unsure.native.value == pytest.approx(0.4 * sure.native.value)
    assert sure.retention is not None
    assert unsure.retention is not None
    assert unsure.retention.value == pytest.approx(sure.retention.value)


def test_it_is_undefined_where_native_does_nothing_that_can_be_told() -> None:
    assert judged_effect(*(scored(i, 0.0) for i in range(4))).retention is None
    silent = np.zeros((2, 5, 1))
    assert judged_effect(silent, silent, silent, silent).retention is None


def test_arms_may_differ_in_their_generations_but_not_in_their_prompts() -> None:
    base, native, carried = scored(0, 0.0, generations=1), scored(1, 0.6), scored(2, 0.3)
    found = judged_effect(base, native, carried, scored(3, 0.0, generations=5))
    assert found.retention is not None
    with pytest.raises(RetentionError, match="the same prompts, not 40, 40, 40, 39 of them"):
        judged_effect(base, native, carried, scored(3, 0.0, prompts=39))
