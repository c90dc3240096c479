"""The matrix as a value: out as JSON and in again, and nothing that contradicts itself."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluation.cargos.kv_cache import CacheCell
from evaluation.cargos.steering import SteeringCell
from evaluation.cells import Control, Spread
from evaluation.matrix import Matrix, MatrixError, PriorScore
from evaluation.retention import Interval

Maker = Callable[..., Matrix]
NUMBERS = st.floats(allow_infinity=False)


@pytest.mark.parametrize("count", [2, 4])
def test_out_and_in_again_is_the_same(made_up: Maker, count: int) -> None:
    matrix = made_up(count)
    text = matrix.to_json()
    again = Matrix.from_json(text)
    assert again.to_json() == text
    assert again.cells[0].retention == matrix.cells[0].retention
    assert again.similarities == matrix.similarities
    assert again.cell("smollm2-135m", "gemma-3-270m", "steering", "sentiment").level == "Excellent"


def test_cells_of_both_cargoes_are_read_as_what_they_are(made_up: Maker) -> None:
    matrix = made_up(3, caches=True)
    again = Matrix.from_json(matrix.to_json())
    assert again.to_json() == matrix.to_json()
    assert [type(cell) for cell in again.cells] == [SteeringCell] * 6 + [CacheCell] * 6
    assert again.cells[6:] == matrix.cells[6:]
    assert again.steering == again.cells[:6]
    assert again.cargoes == ("steering", "kv_cache")
    assert list(again.facets) == [("steering", "sentiment"), ("kv_cache", "continuation")]
    found = again.cell("smollm2-135m", "gemma-3-270m", "kv_cache", "continuation")
    assert found.retention == matrix.cells[6].retention


def test_a_cell_has_what_its_cargo_has(made_up: Maker) -> None:
    matrix = json.loads(made_up(2, caches=True).to_json())
    cell = matrix["cells"][2]
    for wrong, line in (
        ({"cargo": "tales"}, "cells.2: Input tag 'tales' .* 'steering', 'kv_cache', 'lora'"),
        ({"site": "residual.9"}, "cells.2.kv_cache.site: Extra inputs are not permitted"),
        ({"concept": "sentiment"}, "cells.2.kv_cache.concept: Input should be 'continuation'"),
    ):
        with pytest.raises(MatrixError, match=line):
            Matrix.from_json(json.dumps(matrix | {"cells": [*matrix["cells"][:2], cell | wrong]}))


@given(NUMBERS, st.lists(NUMBERS, max_size=5))
def test_every_number_survives_and_nan_is_null(value: float, shares: list[float]) -> None:
    control = Control(
        name="x", retention=Interval(value, value, value), spread=Spread(shares=tuple(shares))
    )
    text = control.model_dump_json()
    again = Control.model_validate_json(text)
    assert again.model_dump_json() == text
    assert "NaN" not in text
    stored = json.loads(text)["retention"]["value"]
    assert (stored is None) == math.isnan(value)
    assert (
        math.isnan(again.retention.value) if math.isnan(value) else again.retention.value == value
    )


def test_a_spread_knows_its_largest() -> None:
    spread = Spread(shares=(0.1, -0.4, 0.2))
    assert (spread.count, spread.largest) == (3, 0.4)
    assert Spread(shares=()).largest == 0


def test_the_table_has_a_flat_row_per_cell(made_up: Maker) -> None:
    matrix = made_up(4)
    rows = matrix.table()
    assert [(row["source"], row["target"]) for row in rows] == [
        (cell.source, cell.target) for cell in matrix.cells
    ]
    undefined = next(row for row in rows if row["level"] == "Undefined")
    assert undefined["retention"] is None
    assert undefined["retention_low"] is None
    assert rows[0]["retention"] == pytest.approx(0.964)
    assert rows[0]["worst_control"] == pytest.approx(0.11)
    (pair,) = (
        each
        for each in matrix.similarities
        if (each.source, each.target) == (rows[0]["source"], rows[0]["target"])
    )
    assert (rows[0]["prior"], rows[0]["alikeness"]) == (None, pair.alikeness)
    prior = PriorScore(source=pair.source, target=pair.target, score=0.7)
    assert matrix.model_copy(update={"priors": (prior,)}).table()[0]["prior"] == 0.7


def test_the_table_has_the_same_columns_for_every_cargo(made_up: Maker) -> None:
    rows = made_up(2, caches=True).table()
    assert len({tuple(row) for row in rows}) == 1
    steered, cached = rows[0], rows[2]
    only = ("site", "role", "strength", "cosine_to_native")
    assert [cached[name] for name in only] == [None] * 4
    assert None not in [steered[name] for name in only]
    assert (cached["cargo"], cached["way"], cached["worst_control"]) == (
        "kv_cache",
        "all cells",
        0.31,
    )


def test_what_was_not_measured_is_said_in_one_line(made_up: Maker) -> None:
    matrix = made_up(2)
    with pytest.raises(
        MatrixError, match=r"no lora of chat from a to b; measured: smollm2-135m -> gemma"
    ):
        matrix.cell("a", "b", "lora", "chat")
    with pytest.raises(MatrixError, match=r"no model c; there are smollm2-135m, gemma-3-270m"):
        matrix.model("c")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "not a compatibility matrix: the text:"),
        ("{}", "not a compatibility matrix: run: Field required"),
        ('{"run": 1}', "not a compatibility matrix: run: Input should be a valid string"),
    ],
)
def test_what_is_no_matrix_is_said_in_one_line(text: str, line: str) -> None:
    with pytest.raises(MatrixError, match=line) as caught:
        Matrix.from_json(text)
    assert "\n" not in str(caught.value)


def test_it_does_not_contradict_itself(made_up: Maker) -> None:
    matrix = made_up(2)
    plain = json.loads(matrix.to_json())
    with pytest.raises(MatrixError, match="two cells for the same cargo and concept"):
        Matrix.from_json(json.dumps(plain | {"cells": plain["cells"][:1] * 2}))
    with pytest.raises(MatrixError, match="not among the models"):
        Matrix.from_json(json.dumps(plain | {"models": plain["models"][:1]}))
    pair = plain["similarities"][0]
    for wrong, line in (
        ({"pairing": [99] * 18}, "one of 30 source layers"),
        ({"cka_raw": [[0.5]]}, "differ in shape"),
    ):
        with pytest.raises(MatrixError, match=line):
            Matrix.from_json(json.dumps(plain | {"similarities": [pair | wrong]}))


def test_groups_have_grids_of_their_number(made_up: Maker) -> None:
    square = ((1.0, 0.5), (0.5, 1.0))
    grids: dict[str, Any] = dict.fromkeys(("cosine", "debiased", "low", "high"), square)
    whole = {"concept": "a", "model": "b", "site": "c", "names": ["d", "e"], "null_95": 0.1} | grids
    matrix = json.loads(made_up(2).to_json())
    found = Matrix.from_json(json.dumps(matrix | {"agreements": [whole]})).agreements
    assert (found[0].furthest, found[0].least) == ((0, 1), 0.5)
    for wrong in ({"names": ["d"]}, {"low": square[:1]}, {"high": ((1.0,), (0.5,))}):
        with pytest.raises(MatrixError, match=r"a: \d groups, and grids of "):
            Matrix.from_json(json.dumps(matrix | {"agreements": [whole | wrong]}))


def test_it_cannot_be_changed(made_up: Maker) -> None:
    with pytest.raises(ValidationError):
        made_up(2).run = "other"  # pyrefly: ignore[read-only]
