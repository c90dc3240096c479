"""A sweep that carries adapters on through other models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluation.matrix import Matrix
from evaluation.tracking import versions
from jobs.adapter_routes import SAME_READING
from jobs.cargos import readings
from jobs.config import read_run_file
from jobs.paths import CHANCE, HUB
from jobs.texts import gather
from tests.deprecated import MLFLOW
from tests.jobs.test_adapters import SECTION as BOTH
from tests.sweeps import Driver, assert_same_cells, change, matrix_of

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.timeout(600),
    *MLFLOW,
]
# Twins: what a random model has learned another of its family learns.
RECIPES = ("rotated", "permuted")
SECTION = BOTH | {"skills": ["social_media"], "solve": False, "safety": False}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    run = tiny_run(tmp_path_factory.mktemp("routes"), models=1, lora=SECTION)
    twins = [
        {"name": recipe, "derived": {"base": "tiny-llama", "recipe": recipe}} for recipe in RECIPES
    ]
    models = [*yaml.safe_load(run.read_text())["models"], *twins]
    change(run, models=models, steering=None, routes={"hops": 3})
    Driver(run).finish()
    return run


@pytest.fixture(scope="module")
def matrix(swept: Path) -> Matrix:
    return matrix_of(swept)


def test_every_pair_that_keeps_something_has_its_best_path(matrix: Matrix) -> None:
    assert matrix.routes, "a twin learns some of what its twin says"
    cells = {cell.key: cell for cell in matrix.adapters}
    for of in matrix.routes:
        assert (of.path[0], of.path[-1]) == (of.source, of.target)
        assert len(set(of.path)) == len(of.path) == 3, "there is one other model"
        cell = cells[of.key]
        assert cell.retention is not None
        kept = (cell.retention.value, cell.retention.low, cell.retention.high)
        direct = (of.direct.value, of.direct.low, of.direct.high)
        assert direct == pytest.approx(kept), "judged on the same items"
        assert of.gain.value == pytest.approx(of.routed.value - of.direct.value)
        shares = {other.name: other.retention for other in of.others}
        assert shares[CHANCE] == of.routed, "the same way"
        assert shares.get(HUB, of.routed) == of.routed
        assert shares[SAME_READING] != of.direct, "it has read more"


def test_a_route_that_is_recommended_is_registered(swept: Path, matrix: Matrix) -> None:
    every = [of.tags for of, _ in versions(read_run_file(swept).tracking_uri, {"cargo": "lora"})]
    paths = [tags["path"] for tags in every if "path" in tags]
    assert sorted(paths) == sorted(" > ".join(of.path) for of in matrix.routes if of.recommended)


def test_a_second_run_asks_nothing(swept: Path, matrix: Matrix) -> None:
    said = Driver(swept).finish()
    assert_same_cells(matrix_of(swept), matrix)
    assert matrix_of(swept).routes == matrix.routes
    assert "social_media: routes of 2 hops, carrying adapters, " in said
    asked = [line for line in said.splitlines() if "routes of 2 hops" in line]
    assert not any(line.endswith(" ...") and "there already" not in line for line in asked)


def test_routes_of_adapters_are_counted(tmp_path: Path, tiny_run: Callable[..., Path]) -> None:
    without, asked = (
        read_run_file(tiny_run(tmp_path, models=3, lora=SECTION, **more))
        for more in ({}, {"routes": {}})
    )
    texts = gather(asked)
    told, same = (
        {of.stage: of.tokens for of in readings(run, texts, 2)} for run in (asked, without)
    )
    assert {stage: told[stage] for stage in same} == same
    assert set(told) - set(same) == {
        "measuring routes, at most",
        "routes of adapters, at most",
    }
