"""What a judge says of texts becomes a row of the matrix."""

from collections.abc import Sequence

import numpy as np
import pytest

from evaluation.judge import JudgeFacts, error_rate
from evaluation.written import judge_written


class Counting:
    """Counts exclamation marks: a judge with a known answer."""

    name = "counting"

    def score(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([text.count("!") / 4 for text in texts])

    def facts(self) -> JudgeFacts:
        return JudgeFacts("nothing", 0, error_rate("made up", [1.0, 1.0, -1.0], [1, -1, -1]))


def marks(*counts: int) -> list[str]:
    return ["!" * count for count in counts]


def test_an_effect_is_half_of_plus_less_minus_and_retention_its_share() -> None:
    written = {
        "native": (marks(4, 4, 3), marks(0, 0, 1)),
        "carried": (marks(2, 4, 2), marks(0, 2, 1)),
        "control": (marks(1, 1, 1), marks(1, 1, 1)),
    }
    row = judge_written(Counting(), written, draws=400, seed=0)
    assert row.judge == "counting"
    assert row.native.value == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert row.carried.value == pytest.approx((0.25 + 0.25 + 0.125) / 3)
    assert (row.control.low, row.control.value, row.control.high) == (0, 0, 0)
    assert row.error.value == pytest.approx(1 / 3)
    assert row.retention is not None
    assert row.retention.value == pytest.approx(0.5)


def test_without_a_native_effect_nothing_is_claimed() -> None:
    same = (marks(1, 2, 1), marks(1, 2, 1))
    written = dict.fromkeys(("native", "carried", "control"), same)
    assert judge_written(Counting(), written, draws=200, seed=0).retention is None
