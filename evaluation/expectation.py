"""What documents and papers assert of pairs like these, by cargo. Nothing here was measured by us.

Steering: success rates of the compatibility analysis this system was asked for. KV caches: a table
of retention by context length. LoRA: shares of the skill gained that published methods kept across
families (arXiv 2508.05232 and its re-test; anchor ridge, CoLoRAI at ICML 2026). Soft prompts: no
published figure orders pairs of architectures.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.cargos import CARGOS
from evaluation.retention import Interval, Level, level

# (prior score, low, high)
_STEERING = (
    (0.20, 0.05, 0.15),
    (0.30, 0.20, 0.35),
    (0.70, 0.40, 0.60),
    (0.85, 0.70, 0.85),
    (0.95, 0.85, 0.95),
)
_LORA = (0.02, 0.31)
# Retention at these context lengths, for pairs of a prior score.
_TOKENS = (1_000, 8_000, 32_000, 128_000, 200_000)
_KV_CACHE = (
    (0.70, (0.94, 0.93, 0.91, 0.88, 0.85)),
    (0.85, (0.96, 0.95, 0.94, 0.92, 0.90)),
    (1.00, (0.99, 0.98, 0.97, 0.96, 0.95)),
)
_KV_LOWEST_SCORE = 0.60  # the table knows no less similar pairs
_KV_HALF_WIDTH = 0.02


@dataclass(frozen=True)
class Band:
    """A range of retention that others assert."""

    low: float
    high: float

    @property
    def level(self) -> Level:
        """Of its middle."""
        middle = (self.low + self.high) / 2
        return level(Interval(middle, self.low, self.high))

    def __str__(self) -> str:
        return f"{self.low:.2f} to {self.high:.2f}"


def expected(cargo: str, score: float, context: int) -> Band | None:
    """The band asserted for a prior score and, for caches, a context in tokens; None if none is."""
    assert cargo in CARGOS, cargo
    if cargo == "steering":
        scores, lows, highs = zip(*_STEERING, strict=True)
        return Band(float(np.interp(score, scores, lows)), float(np.interp(score, scores, highs)))
    if cargo == "lora":
        return Band(*_LORA)
    if cargo == "kv_cache" and score >= _KV_LOWEST_SCORE:
        at = [np.interp(np.log(context), np.log(_TOKENS), row) for _, row in _KV_CACHE]
        middle = float(np.interp(score, [known for known, _ in _KV_CACHE], at))
        return Band(middle - _KV_HALF_WIDTH, min(middle + _KV_HALF_WIDTH, 1.0))
    return None
