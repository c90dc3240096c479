"""The cell of latents beside the numbers it was planted with."""

import numpy as np
import pytest

from evaluation.cargos.soft_prompt import BYTES, RELAY, PromptCell, prompt_cell
from evaluation.retention import Level
from evaluation.skills import SKILLS
from evaluation.trained_ways import BASE, NATIVE, Effort, Judging

SHARES = {BASE: 0.0, NATIVE: 1.0, "one": 0.97, "other": 0.3, "zero latents": 0.02}
SHARES |= {RELAY: 0.6, BYTES: 0.5}
EFFORTS = {
    NATIVE: Effort((2.0, 1.0), 9_000, 60.0),
    "one": Effort((3.0, 0.5, 0.6), 800, 5.0),
    "other": Effort((3.0, 0.7), 700, 4.0),
}


def made(gain: float = 0.4, items: int = 40) -> PromptCell:
    rng = np.random.default_rng(0)
    start, gained = rng.normal(0, 0.3, items), gain + rng.normal(0, 0.02, items)
    scores = {name: start + share * gained for name, share in SHARES.items()}
    return prompt_cell(
        "a", "b", Judging(SKILLS["sentiment"], scores, scores, 400, 0), EFFORTS, way="one",
        site="residual.3", count=16, learned=20, parameters=1_000, map_bytes=1_000,
        map_address="e1" * 32,
    )  # fmt: skip


def test_what_was_planted_is_found() -> None:
    cell = made()
    assert cell.key == ("a", "b", "soft_prompt", "sentiment")
    assert cell.retention is not None
    assert cell.retention.value == pytest.approx(0.97)
    assert cell.level is Level.EXCELLENT
    assert cell.relay is not None
    assert cell.relay.value == pytest.approx(0.6)
    assert cell.of_bytes is not None
    assert cell.of_bytes.value == pytest.approx(0.5)
    one, other = cell.ways
    assert (one.held, other.held) == (pytest.approx(0.97), pytest.approx(0.3))
    assert (one.loss_before, one.loss_after, one.tokens) == (3.0, 0.5, 800)
    (control,) = cell.controls
    assert (control.name, control.retention.value) == ("zero latents", pytest.approx(0.02))
    assert (cell.native_tokens, cell.native_seconds) == (9_000, 60.0)


def test_without_a_native_gain_nothing_is_claimed() -> None:
    cell = made(gain=0.0)
    assert cell.retention is None
    assert cell.relay is None
    assert cell.level is Level.UNDEFINED
    assert cell.controls == ()
