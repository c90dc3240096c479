"""The picture of what strengths do: every point is where its number says."""

import pytest

from evaluation.cargos.steering import StrengthPoint
from evaluation.strength_curve import BOTTOM, LEFT, LINES, RIGHT, TOP, strength_curve

POINTS = tuple(
    StrengthPoint(strength=at, native=5 * at, carried=2 * at, control=0.3)
    for at in (-0.4, -0.1, 0.1, 0.4)
)


def test_points_are_linear_in_strength_and_odds() -> None:
    drawn = strength_curve(POINTS)
    assert tuple(drawn.lines) == LINES
    assert drawn.lines["native"][0] == (LEFT, BOTTOM)
    assert drawn.lines["native"][-1] == (RIGHT, TOP)
    middle = (LEFT + RIGHT) / 2
    for name, slope in (("native", 5), ("carried", 2)):
        for point, (x, y) in zip(POINTS, drawn.lines[name], strict=True):
            assert x == pytest.approx(middle + (RIGHT - middle) * point.strength / 0.4, abs=0.1)
            share = (slope * point.strength + 2) / 4
            assert y == pytest.approx(BOTTOM - (BOTTOM - TOP) * share, abs=0.1)
    assert len({y for _, y in drawn.lines["control"]}) == 1
    assert [label for _, label in drawn.across] == ["-0.4", "0", "0.4"]
    assert [label for _, label in drawn.up] == ["-2.0", "2.0"]


def test_what_does_nothing_is_drawn_too() -> None:
    flat = tuple(each.model_copy(update={"native": 0.3, "carried": 0.3}) for each in POINTS)
    assert {y for line in strength_curve(flat).lines.values() for _, y in line} == {BOTTOM}
