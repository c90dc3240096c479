"""Geometry of a picture of one thing that was known beside what was kept."""

from dataclasses import dataclass

from evaluation.predictors import Predictor

WIDE, HIGH = 300, 304
LEFT, TOP, SPAN = 36, 8, 252  # of the square in it
LEAST, MOST = -0.25, 1.25  # retentions beyond are drawn at the edge


@dataclass(frozen=True)
class Scatter:
    """Dots in the picture, lines of equal retention with their labels, and the ends of the axis."""

    dots: tuple[tuple[float, float], ...]
    levels: tuple[tuple[float, str], ...]
    low: float
    high: float


def scatter(of: Predictor) -> Scatter:
    """Retention goes up; what was known goes to the right, from its least to its greatest."""
    low, high = min(of.values), max(of.values)
    wide = high - low or 1.0

    def up(share: float) -> float:
        kept = min(max(share, LEAST), MOST)
        return round(TOP + SPAN * (MOST - kept) / (MOST - LEAST), 1)

    dots = (
        (round(LEFT + SPAN * (value - low) / wide, 1), up(kept))
        for value, kept in zip(of.values, of.retentions, strict=True)
    )
    return Scatter(tuple(dots), tuple((up(at), f"{at:g}") for at in (0.0, 0.5, 1.0)), low, high)
