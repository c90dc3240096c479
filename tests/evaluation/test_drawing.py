"""Geometry of the pictures: what is drawn is where the number says."""

import re
from collections.abc import Callable

import pytest

from alignment.layers import ROLES, role_layer
from evaluation.cells import Control
from evaluation.drawing import SHADES, SIDE, forest, layer_maps, neighbour_top
from evaluation.matrix import Matrix
from evaluation.palette import LEVEL_COLOURS, LEVEL_INKS
from evaluation.retention import Interval, Level

Maker = Callable[..., Matrix]


def test_places_are_linear_in_the_share(made_up: Maker) -> None:
    cell = made_up(2).cells[0]
    drawn = forest(cell)
    unit = drawn.one - drawn.zero
    for row in drawn.rows:
        if row.share is not None:
            assert row.whisker is not None
            for share, place in (
                (row.share.value, row.whisker.value),
                (row.share.low, row.whisker.low),
                (row.share.high, row.whisker.high),
            ):
                assert place == pytest.approx(drawn.zero + share * unit, abs=0.05)
                assert 0 <= place <= 100
    random = next(row for row in drawn.rows if row.label == "Random directions")
    assert len(random.strip) == 20
    assert "1" in [label for _, label in drawn.ticks]


def test_caches_stand_beside_what_the_target_knows_alone(made_up: Maker) -> None:
    cell = made_up(2, caches=True).cells[2]
    rows = forest(cell).rows
    assert [(row.kind, row.label) for row in rows] == [
        ("native", "Native"),
        ("carried", "Carried"),
        ("way", "Own tokens alone"),
        ("control", "Shuffled rows"),
        ("control", "Another text"),
        ("control", "Mean cell"),
    ]
    assert rows[1].note == "through all cells"


def test_what_is_far_out_stays_on_the_page(made_up: Maker) -> None:
    cell = made_up(2).cells[0]
    wild = Control(name="wild", retention=Interval(40.0, -30.0, 90.0))
    unknown = Control(name="unknown", retention=Interval(float("nan"), 0.0, 1.0))
    drawn = forest(cell.model_copy(update={"controls": (wild, unknown)}))
    assert all(0 <= place <= 100 for place, _ in drawn.ticks)
    first, second = drawn.rows[-2:]
    assert first.whisker is not None
    assert (first.whisker.low, first.whisker.high) == (0.0, 100.0)
    assert second.whisker is None


def test_every_layer_pair_is_drawn_once(made_up: Maker) -> None:
    matrix = made_up(2)
    pair = matrix.similarities[0]
    maps = layer_maps(pair, neighbour_top(matrix.similarities))
    layers, target_layers = pair.shape
    for drawn in maps:
        area = [
            int(width)
            for _, path in drawn.shades
            for width in re.findall(r"M\d+ \d+h(\d+)v1h-\d+z", path)
        ]
        assert sum(area) == layers * target_layers
        assert all(0 <= shade <= 1 for shade, _ in drawn.shades)
        assert len(drawn.shades) <= SHADES
        assert len(drawn.pairing.split()) == target_layers
        assert [role.target_layer for role in drawn.roles] == [
            role_layer(role, target_layers) for role in ROLES
        ]
        assert all(0 <= role.x <= SIDE and 0 <= role.y <= SIDE for role in drawn.roles)


def test_what_is_not_a_number_is_left_empty(made_up: Maker) -> None:
    pair = made_up(2).similarities[0]
    hole = (float("nan"), *pair.cka[0][1:])
    with_hole = pair.model_copy(update={"cka": (hole, *pair.cka[1:])})
    drawn = layer_maps(with_hole, 0.4)[0]
    assert not any("M0 0h" in path for _, path in drawn.shades)


@pytest.mark.parametrize("level", list(Level))
def test_words_on_colours_can_be_read(level: Level) -> None:
    light, dark = sorted(map(_luminance, (LEVEL_COLOURS[level], LEVEL_INKS[level])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5, "WCAG AA"


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
