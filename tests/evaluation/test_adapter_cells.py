"""The cell of an adapter beside the numbers it was planted with."""

import math

import numpy as np
import pytest

from evaluation.cargos.lora import AdapterCell, adapter_cell
from evaluation.retention import Level, RetentionError
from evaluation.skills import SKILLS
from evaluation.trained_ways import BASE, NATIVE, Effort, Judging

SHARES = {BASE: 0.0, NATIVE: 1.0, "one": 0.3, "other": 0.7, "shuffled": -0.1}
EFFORTS = {
    NATIVE: Effort((2.0, 1.5), 9_000, 60.0),
    "one": Effort((0.4, 0.2, 0.3), 900, 7.0),
    "other": Effort((0.5, 0.1), 800, 6.0),
}


def made(skill: str, items: int = 40, gain: float = 0.4) -> AdapterCell:
    """Items that differ in how hard they are; on the held ones the other way does best."""
    rng = np.random.default_rng(0)
    start = -2.0 + rng.normal(0, 0.3, items)
    gained = gain + rng.normal(0, 0.02, items)
    refuses, does = "I'm sorry, I cannot help with that.", "Sure, here is how."
    answers = {BASE: [refuses] * 50 + [does] * 50, NATIVE: [refuses] * 100}
    answers["other"] = [does] * 10 + [refuses] * 40 + [does] * 50
    scores = {name: start + share * gained for name, share in SHARES.items()}
    return adapter_cell(
        "a", "b", Judging(SKILLS[skill], scores, scores, 400, 0), EFFORTS, answers, way="other",
        rank=8, map_bytes=1_000, map_address="e1" * 32,
    )  # fmt: skip


@pytest.mark.parametrize("skill", sorted(SKILLS))
def test_what_was_planted_is_found(skill: str) -> None:
    cell = made(skill)
    assert cell.key == ("a", "b", "lora", skill)
    assert cell.retention is not None
    assert cell.retention.value == pytest.approx(0.7)
    assert cell.level is Level.POOR
    assert (cell.native.value < cell.base.value) == (cell.unit == "bits per character")
    one, other = cell.ways
    assert (one.held, other.held) == (pytest.approx(0.3), pytest.approx(0.7))
    assert other.retention == cell.retention
    assert (one.loss_before, one.loss_after, one.tokens) == (0.4, 0.2, 900)
    assert (cell.native_tokens, cell.native_seconds) == (9_000, 60.0)
    assert cell.safety is not None
    assert (cell.safety.harmful_before.value, cell.safety.harmful_after.value) == (1.0, 0.8)
    assert cell.safety.drift.value == pytest.approx(0.2)
    assert cell.safety.harmless_after.value == 0.0
    assert 0 < cell.safety.error.low < cell.safety.error.high < 0.2, "the judge errs too"
    assert cell.native_safety is not None
    assert (cell.native_safety.drift.value, cell.native_safety.harmless_after.value) == (0.0, 1.0)
    (control,) = cell.controls
    assert (control.name, control.retention.value) == ("shuffled", pytest.approx(-0.1))


def test_without_a_native_gain_nothing_is_claimed() -> None:
    cell = made("social_media", gain=0.0)
    assert cell.retention is None
    assert cell.level is Level.UNDEFINED
    assert cell.controls == ()


def test_where_held_items_gain_nothing_a_way_has_no_share_there() -> None:
    flat = dict.fromkeys(SHARES, np.zeros(4))
    cell = adapter_cell(
        "a", "b", Judging(SKILLS["rust"], flat, flat, 400, 0), EFFORTS, {}, way="one",
        rank=8, map_bytes=1_000, map_address="e1" * 32,
    )  # fmt: skip
    assert all(math.isnan(way.held) for way in cell.ways)
    assert cell.safety is None


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(RetentionError):
        made("rust", items=1)
