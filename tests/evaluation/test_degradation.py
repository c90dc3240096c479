"""Shares by what they depend on: every crossing is in its row, and the row says how many."""

from collections.abc import Callable

import pytest

from evaluation.degradation import degradations
from evaluation.matrix import Matrix

Maker = Callable[..., Matrix]


def test_a_row_spans_the_crossings_it_is_of(made_up: Maker) -> None:
    matrix = made_up(3, concepts=("sentiment", "refusal"))
    (found,) = degradations(matrix)
    assert (found.cargo, found.by) == ("steering", "what is carried")
    unit = found.forest.one - found.forest.zero
    for row, concept in zip(found.forest.rows, ("sentiment", "refusal"), strict=True):
        kept = [c.retention.value for c in matrix.cells if c.concept == concept and c.retention]
        assert row.note == f"{len(kept)} of 6 crossings"
        assert row.share is not None
        assert (row.share.low, row.share.high) == (min(kept), max(kept))
        places = [found.forest.zero + share * unit for share in kept]
        assert list(row.strip) == pytest.approx(places, abs=0.05)


def test_what_is_alone_is_not_set_beside_anything(made_up: Maker) -> None:
    assert degradations(made_up(2)) == []
    assert degradations(made_up(2).model_copy(update={"cells": ()})) == []


def test_an_older_matrix_without_lengths_has_its_kinds_alone(made_up: Maker) -> None:
    cells = [
        cell.model_copy(update={"lengths": (), "losses": ()})
        for cell in made_up(2, caches=True).cells
        if cell.cargo == "kv_cache"
    ]
    of = made_up(2).model_copy(update={"cells": tuple(cells)})
    assert [each.by for each in degradations(of)] == ["kind of text"]
