"""What many cells say together, beside the same worked out by hand."""

from collections.abc import Callable

import pytest

from evaluation.digest import digest
from evaluation.matrix import Matrix

Maker = Callable[..., Matrix]


def test_a_digest_is_of_the_cells_with_a_native_effect(made_up: Maker) -> None:
    found = digest("all", made_up(4).cells)
    assert (found.count, found.defined, found.real) == (12, 11, 11)
    assert found.retention == pytest.approx(0.905)  # the sixth of eleven
    assert found.lowest == pytest.approx(0.645 - 0.035)
    assert found.held == pytest.approx(8 / 11)
    assert found.controls["pad or truncate"] == pytest.approx(0.11)
    assert found.worst_control == pytest.approx(0.11)
    assert found.cost == pytest.approx(0.064 / 0.061)


def test_an_effect_that_random_directions_have_too_is_not_counted(made_up: Maker) -> None:
    by_chance, *others = made_up(4).cells
    found = digest("all", [by_chance.model_copy(update={"native_p": 0.1}), *others])
    assert (found.count, found.defined, found.real) == (12, 11, 10)
    assert found.held == pytest.approx(7 / 10)


def test_caches_are_summed_up_without_a_cost(made_up: Maker) -> None:
    cells = made_up(4, caches=True).cells
    found = digest("caches", cells[12:])
    assert (found.count, found.defined, found.real, found.cost) == (12, 11, 11, None)
    assert found.retention == pytest.approx(0.51)
    assert found.worst_control == pytest.approx(-0.31)
    both = digest("both", cells)
    assert (both.count, both.real) == (24, 22)
    assert both.cost == digest("steering", cells[:12]).cost


def test_cells_without_a_native_effect_say_nothing(made_up: Maker) -> None:
    found = digest("none", made_up(2, first=None).cells[:1])
    assert (found.count, found.defined, found.retention, found.held) == (1, 0, None, None)
    assert (found.lowest, found.worst_control, found.cost, found.controls) == (None, None, None, {})
