"""Geometry of the picture of what each strength does: natively, carried, and at random."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.cargos.steering import StrengthPoint

WIDE, HIGH = 420, 240
LEFT, TOP, RIGHT, BOTTOM = 46, 10, 410, 200  # of the field in it
LINES = ("native", "carried", "control")


@dataclass(frozen=True)
class StrengthCurve:
    """Points of a line by name, and labels: (place, text) along each axis."""

    lines: dict[str, tuple[tuple[float, float], ...]]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]


def strength_curve(points: Sequence[StrengthPoint]) -> StrengthCurve:
    """Strengths go to the right, log-odds up, from the least to the greatest of all lines."""
    every = [getattr(point, name) for point in points for name in LINES]
    first, last = points[0].strength, points[-1].strength
    low, high = min(every), max(every)

    def across(strength: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (strength - first) / ((last - first) or 1.0), 1)

    def up(odds: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (odds - low) / ((high - low) or 1.0), 1)

    lines = {
        name: tuple((across(each.strength), up(getattr(each, name))) for each in points)
        for name in LINES
    }
    return StrengthCurve(
        lines,
        tuple((across(at), f"{at:g}") for at in (first, 0.0, last)),
        tuple((up(odds), f"{odds:.1f}") for odds in (low, high)),
    )
