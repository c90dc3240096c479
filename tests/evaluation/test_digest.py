"""What many cells say together, beside the same worked out by hand."""

from collections.abc import Callable

import pytest

from evaluation.digest import digest
from evaluation.matrix import Matrix

Maker = Callable[..., Matrix]


def test_a_digest_is_of_the_cells_with_a_native_effect(made_up: Maker) -> None:
    found = digest("all", made_up(4).cells)
    assert (found.count, found.defined) == (12, 11)
    assert found.retention == pytest.approx(0.905)  # the sixth of eleven
    assert found.lowest == pytest.approx(0.645 - 0.035)
    assert found.held == pytest.approx(8 / 11)
    assert found.controls["pad or truncate"] == pytest.approx(0.11)
    assert found.worst_control == pytest.approx(0.11)
    assert found.cost is None  # no cell has a finite KL of what was carried


def test_cells_without_a_native_effect_say_nothing(made_up: Maker) -> None:
    found = digest("none", made_up(2, first=None).cells[:1])
    assert (found.count, found.defined, found.retention, found.held) == (1, 0, None, None)
    assert (found.lowest, found.worst_control, found.cost, found.controls) == (None, None, None, {})
