"""A sweep that sends steering vectors through other models, and the verb that says what came."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluation.matrix import Matrix
from evaluation.tracking import versions
from jobs.cargos import readings
from jobs.config import read_run_file
from jobs.names import MATRIX_FILE, ROOT
from jobs.paths import CHANCE, HUB
from jobs.routes import SAME_ROWS
from jobs.texts import gather
from tests.deprecated import MLFLOW
from tests.sweeps import PATIENCE, Driver, change, command, environment, matrix_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), *MLFLOW]
# Twins: between random models of different families hardly anything is kept.
RECIPES = ("rotated", "permuted")
NAMES = ("tiny-llama", *RECIPES)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    run = tiny_run(tmp_path_factory.mktemp("routes"), models=1)
    twins = [
        {"name": recipe, "derived": {"base": "tiny-llama", "recipe": recipe}} for recipe in RECIPES
    ]
    models = [*yaml.safe_load(run.read_text())["models"], *twins]
    change(run, models=models, routes={"hops": 3})
    Driver(run).finish()
    return run


@pytest.fixture(scope="module")
def matrix(swept: Path) -> Matrix:
    return matrix_of(swept)


def told(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("route", *arguments),
        cwd=ROOT,
        env=environment(COLUMNS="200"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_every_pair_that_a_vector_moves_has_its_best_path(matrix: Matrix) -> None:
    assert matrix.routes, "some of six pairs have a native effect and hops that keep some of it"
    cells = {cell.key: cell for cell in matrix.steering}
    for of in matrix.routes:
        assert (of.path[0], of.path[-1]) == (of.source, of.target)
        assert len(set(of.path)) == len(of.path) == 3, "there is one other model"
        assert set(of.path) == set(NAMES)
        cell = cells[of.key]
        assert cell.retention is not None
        assert of.direct == cell.retention, "judged on the same prompts"
        assert of.gain.value == pytest.approx(of.routed.value - of.direct.value)
        assert of.expected > 0.9
        assert of.routed.value == pytest.approx(1, abs=0.05), "twins keep all of it on the way"
        assert {other.name for other in of.others} <= {SAME_ROWS, HUB, CHANCE}


def test_with_one_other_model_every_way_through_it_is_the_same(matrix: Matrix) -> None:
    for of in matrix.routes:
        shares = {other.name: other.retention for other in of.others}
        assert shares[CHANCE] == of.routed
        assert shares.get(HUB, of.routed) == of.routed
        assert shares[SAME_ROWS] != of.routed, "its legs saw less"


def test_a_route_that_is_recommended_is_registered(swept: Path, matrix: Matrix) -> None:
    every = [
        of.tags for of, _ in versions(read_run_file(swept).tracking_uri, {"cargo": "steering"})
    ]
    assert len([tags for tags in every if "path" not in tags]) == len(matrix.cells)
    paths = [tags["path"] for tags in every if "path" in tags]
    assert sorted(paths) == sorted(" > ".join(of.path) for of in matrix.routes if of.recommended)


def test_the_verb_says_what_was_measured(swept: Path, matrix: Matrix) -> None:
    of = matrix.routes[0]
    folder = read_run_file(swept).folder
    for at in (folder / MATRIX_FILE, folder.parent):
        ran = told(of.source, of.target, "--from", str(at))
        assert ran.returncode == 0, ran.stderr
        assert " → ".join(of.path) in ran.stdout
        assert f"{of.gain.value:.2f} ({of.gain.low:.2f} to {of.gain.high:.2f})" in ran.stdout
        assert ("recommended" if of.recommended else "not better than direct") in ran.stdout
    page = (folder / "index.html").read_text()
    assert 'id="routes"' in page
    assert " → ".join(of.path) in page


def test_what_was_not_measured_is_said_in_a_line(swept: Path) -> None:
    ran = told("tiny-llama", "nobody", "--from", str(read_run_file(swept).folder))
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("no route of steering from tiny-llama to nobody in ")
    assert line.endswith(": sweep a run file with a section routes")


def test_routes_need_a_third_model_and_vectors(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match="routes: steering vectors and adapters are sent through"):
        read_run_file(tiny_run(tmp_path, models=2, routes={}))


def test_routes_are_counted_where_they_are_asked_for(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    without, asked = (
        read_run_file(tiny_run(tmp_path, models=3, **more)) for more in ({}, {"routes": {}})
    )
    texts = gather(asked)
    (*same, routes), (*_, more) = (readings(asked, texts, others) for others in (2, 3))
    assert tuple(same) == readings(without, texts, 2)
    assert routes.stage == "measuring routes, at most"
    assert more.tokens == pytest.approx(1.5 * routes.tokens)
    measured = {each.stage: each.tokens for each in same}["measuring on test"]
    assert 0 < routes.tokens < measured
