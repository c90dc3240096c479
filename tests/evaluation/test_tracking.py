"""Tracking on a real SQLite store; the pulled model in a process that has none of our code."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.torch import load_file, save_file

from alignment.cache_map import CacheMap
from alignment.maps import Affine, LowRank, Map, Mixture, Network
from evaluation.cells import Key
from evaluation.matrix import Matrix
from evaluation.tracking import CHAMPION, TrackedRun, TrackingError, pull, track
from tests.cache_files import cache_map

WIDTH, TARGET_WIDTH = 5, 7
NAME = "smollm2-135m--gemma-3-270m--steering--sentiment"
KEY = ("smollm2-135m", "gemma-3-270m", "steering", "sentiment")
Maker = Callable[..., Matrix]

# MLflow asks SQLAlchemy and pandas for what is on its way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


class Bench:
    """A store in its own directory, and files to track."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"sqlite:///{root / 'store' / 'mlflow.db'}"
        self.page = root / "page.html"
        self.page.write_text("<!doctype html><title>page</title>")

    def files(self, matrix: Matrix) -> dict[Key, Path]:
        torch.manual_seed(0)
        maps = {cell.key: self.root / "files" / "--".join(cell.key) for cell in matrix.cells}
        for key, directory in maps.items():
            if not directory.exists() and key[2] == "kv_cache":
                cache_map().save(directory, 16)
            elif not directory.exists():
                Affine(torch.randn(TARGET_WIDTH, WIDTH), torch.randn(TARGET_WIDTH)).save(directory)
                save_file({"vector": torch.randn(TARGET_WIDTH)}, directory / "vector.safetensors")
        return maps

    def track(self, matrix: Matrix, experiment: str = "demo") -> TrackedRun:
        maps = self.files(matrix)
        return track(matrix, uri=self.uri, experiment=experiment, maps=maps, page=self.page)

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def runs(self, tracked: TrackedRun) -> list[Run]:
        return list(self.client().search_runs([tracked.experiment_id]))

    def champion(self) -> str:
        return str(self.client().get_registered_model(NAME).aliases[CHAMPION])


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database that holds one empty sweep: making one takes seconds, copying it none."""
    bench = Bench(tmp_path_factory.mktemp("new"))
    models = {"models": [], "similarities": [], "cells": [], "run": "empty", "address": "0"}
    facts = {"texts": 0, "rows": 0, "fingerprint": "", "corpora": []}
    rest = {"created": "", "anchors": facts, "lineage": {}, "seconds": {}}
    bench.track(Matrix.model_validate(models | rest), experiment="empty")
    return bench.root / "store" / "mlflow.db"


@pytest.fixture
def bench(tmp_path: Path, migrated: Path) -> Bench:
    return _with_store(tmp_path, migrated)


def _with_store(root: Path, migrated: Path) -> Bench:
    (root / "store").mkdir()
    shutil.copy(migrated, root / "store" / "mlflow.db")
    return Bench(root)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Bench:
    """A store with one sweep in it, for the tests that only look."""
    return _with_store(tmp_path_factory.mktemp("shared"), migrated)


def test_one_parent_a_child_per_cell_and_metrics_with_intervals(
    shared: Bench, made_up: Maker
) -> None:
    bench = shared
    matrix = made_up(2)
    tracked = bench.track(matrix)
    assert bench.track(matrix) == tracked, "the same matrix again changes nothing"
    assert len(bench.runs(tracked)) == 3
    assert set(tracked.versions.values()) == {"1"}
    parent = bench.client().get_run(tracked.run_id)
    children = [r for r in bench.runs(tracked) if "mlflow.parentRunId" in r.data.tags]
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {tracked.run_id}
    assert {(r.data.tags["source"], r.data.tags["target"]) for r in children} == {
        (cell.source, cell.target) for cell in matrix.cells
    }
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    child = next(run for run in children if run.data.tags["source"] == "smollm2-135m")
    cell = matrix.cell(*KEY)
    assert cell.retention is not None
    metrics = child.data.metrics
    assert metrics["retention"] == pytest.approx(cell.retention.value)
    assert metrics["retention_low"] == pytest.approx(cell.retention.low)
    assert metrics["retention_high"] == pytest.approx(cell.retention.high)
    spread = cell.controls[0].spread
    assert spread is not None
    assert metrics["control.random-directions_largest"] == pytest.approx(spread.largest)
    assert "neutral.carried.kl" not in metrics, "what is NaN is not logged"
    assert child.data.tags["fingerprint.source"] == matrix.models[0].fingerprint
    assert parent.data.tags["fingerprint.anchors"] == matrix.anchors.fingerprint
    assert parent.data.tags["lineage.code"] == "0.1.0"
    files = {item.path for item in bench.client().list_artifacts(tracked.run_id)}
    assert files == {
        "matrix.json",
        "matrix_table.json",
        "matrix_steering_sentiment.png",
        "page.html",
    }
    stored = bench.root / "store" / "artifacts" / tracked.run_id / "artifacts"
    assert Matrix.from_json((stored / "matrix.json").read_text()).to_json() == matrix.to_json()
    table = json.loads((stored / "matrix_table.json").read_text())
    assert len(table["data"]) == len(matrix.cells)
    assert not (Path.cwd() / "mlruns").exists()


def test_killed_at_any_moment_it_continues(bench: Bench, made_up: Maker) -> None:
    matrix = made_up(3)
    bench.files(matrix)
    context = multiprocessing.get_context("fork")
    for seconds in (0.15, 0.35, 0.6, 0.9, 1.2):
        process = context.Process(target=bench.track, args=(matrix,))
        process.start()
        time.sleep(seconds)
        assert process.pid is not None
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    tracked = bench.track(matrix)
    runs = bench.runs(tracked)
    assert len(runs) == 1 + len(matrix.cells)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert set(tracked.versions.values()) == {"1"}
    for run in runs:
        for key in run.data.metrics:
            assert len(bench.client().get_metric_history(run.info.run_id, key)) == 1
    logged = bench.client().search_logged_models([tracked.experiment_id])
    assert len(logged) == len(matrix.cells)


def test_the_champion_moves_unless_the_new_one_is_worse(bench: Bench, made_up: Maker) -> None:
    def sweep(kept: float | None, address: str) -> Matrix:
        matrix = made_up(2, address=address, first=kept)
        return matrix.model_copy(update={"cells": (matrix.cell(*KEY),)})

    champions = []
    for index, kept in enumerate((None, 0.8, None, 0.7, 0.8, 0.9)):
        tracked = bench.track(sweep(kept, str(index)))
        assert tracked.versions[NAME] == str(index + 1)
        champions.append(bench.champion())
    assert champions == ["1", "2", "2", "2", "5", "6"]
    bench.track(sweep(0.8, "4"))
    assert bench.champion() == "6", "an old sweep tracked again takes nothing back"


LOADER = """
import json, sys

class Absent:
    names = {"alignment", "actors", "cluster", "evaluation", "jobs", "transformers", "ray"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import mlflow.pyfunc, numpy, torch
mlflow.set_tracking_uri(sys.argv[3])
points = numpy.arange(10, dtype="float32").reshape(2, 5)
for where in sys.argv[1:3]:
    loaded = mlflow.pyfunc.load_model(where)
    inner = loaded.unwrap_python_model()
    print(json.dumps({
        "transform": loaded.predict(points.tolist()),
        "pushforward": inner.pushforward(torch.from_numpy(points)).tolist(),
        "vector": inner.vector().tolist(),
        "site": inner.facts()["site"],
    }))
"""


def test_a_pulled_map_loads_without_our_code(shared: Bench, made_up: Maker, tmp_path: Path) -> None:
    shared.track(made_up(2))
    got = pull(NAME, CHAMPION, uri=shared.uri, to=tmp_path / "got")
    places = (f"models:/{NAME}@{CHAMPION}", str(got))
    finished = subprocess.run(
        [sys.executable, "-c", LOADER, *places, shared.uri],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    registered, pulled = map(json.loads, finished.stdout.splitlines()[-2:])
    assert registered == pulled
    kept = shared.files(made_up(2))[KEY]
    stored = load_file(kept / "map.safetensors")
    points = torch.arange(10, dtype=torch.float32).reshape(2, WIDTH)
    pushed = points @ stored["weight"].T
    torch.testing.assert_close(torch.tensor(pulled["pushforward"]), pushed)
    torch.testing.assert_close(torch.tensor(pulled["transform"]), pushed + stored["bias"])
    vector = load_file(kept / "vector.safetensors")["vector"]
    torch.testing.assert_close(torch.tensor(pulled["vector"]), vector)
    assert pulled["site"] == "residual.9"


def low_rank() -> Map:
    return LowRank(torch.randn(TARGET_WIDTH, 2), torch.randn(2, WIDTH), torch.randn(TARGET_WIDTH))


def network() -> Map:
    base = Affine(torch.randn(TARGET_WIDTH, WIDTH), torch.randn(TARGET_WIDTH))
    inner, outer = torch.randn(3, WIDTH), torch.randn(TARGET_WIDTH, 3)
    return Network.over(torch.randn(9, WIDTH), base, inner, torch.randn(3), outer)


def mixture() -> Map:
    weight, bias = torch.randn(3, TARGET_WIDTH, WIDTH), torch.randn(3, TARGET_WIDTH)
    mixed = Mixture.of(weight, bias, torch.randn(3, WIDTH), torch.randn(3))
    return mixed.over(torch.randn(9, WIDTH))


@pytest.mark.parametrize("made", [low_rank, network, mixture])
def test_a_map_of_another_kind_is_pulled_as_any(
    bench: Bench, made_up: Maker, tmp_path: Path, made: Callable[[], Map]
) -> None:
    from mlflow.pyfunc import load_model  # its import warns, unless `tracking` comes before

    matrix, stored = made_up(2), made()
    stored.save(bench.files(matrix)[KEY])
    bench.track(matrix)
    got = pull(NAME, CHAMPION, uri=bench.uri, to=tmp_path / "got")
    points = torch.randn(3, WIDTH)
    said: dict[str, Any] = {}
    with chdir(got):
        exec("\n".join(readme_lines(got)), said)
    loaded = load_model(str(got)).unwrap_python_model()
    for transform, pushforward in (
        (loaded.transform, loaded.pushforward),
        (said["transform"], said["pushforward"]),
    ):
        torch.testing.assert_close(transform(points), stored.transform(points))
        torch.testing.assert_close(pushforward(points), stored.pushforward(points))


def readme_lines(got: Path) -> list[str]:
    text = (got / "README.txt").read_text()
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


def test_the_lines_of_the_readme_run(shared: Bench, made_up: Maker, tmp_path: Path) -> None:
    shared.track(made_up(2))
    got = pull(NAME, "1", uri=shared.uri, to=tmp_path / "a" / "got")
    lines = readme_lines(got)
    assert len(lines) == 7
    check = "import torch; print(pushforward(torch.ones(2, 5)).shape, transform(vector[:5]).shape)"
    finished = subprocess.run(
        [sys.executable, "-c", "\n".join((*lines, check))],
        cwd=got,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.strip() == "torch.Size([2, 7]) torch.Size([7])", finished.stderr
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["got"], "nothing is left aside"


CACHE_LOADER = (
    LOADER.partition("import mlflow")[0]
    + """
import mlflow.pyfunc, numpy
inputs = json.loads(sys.argv[1])
model = mlflow.pyfunc.load_model(".")
found = model.predict({name: numpy.array(of, "float32") for name, of in inputs.items()})
said = {}
exec(sys.argv[2], said)
read = said["transform"]({name: said["torch"].tensor(of) for name, of in inputs.items()})
facts = model.unwrap_python_model().facts()
for cells in (found, read, {"facts": [facts["cached_characters"], facts["tokens"]]}):
    print(json.dumps({site: getattr(of, "tolist", lambda: of)() for site, of in cells.items()}))
print(json.dumps(model.unwrap_python_model().reads()))
"""
)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_pulled_map_of_caches_loads_without_our_code(
    bench: Bench, made_up: Maker, tmp_path: Path, rank: int | None
) -> None:
    matrix, stored = made_up(2, caches=True), cache_map(rank)
    key = matrix.cells[2].key
    stored.save(bench.files(matrix)[key], 16)
    tracked = bench.track(matrix)
    assert bench.track(matrix) == tracked, "the same matrix again changes nothing"
    got = pull("--".join(key), CHAMPION, uri=bench.uri, to=tmp_path / "got")
    inputs = {name: torch.randn(3, width) for name, width in stored.reads.items()}
    sent = json.dumps({name: of.tolist() for name, of in inputs.items()})
    finished = subprocess.run(
        [sys.executable, "-c", CACHE_LOADER, sent, "\n".join(readme_lines(got))],
        cwd=got,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Add type hints" not in finished.stderr
    predicted, read, facts, reads = map(json.loads, finished.stdout.splitlines()[-4:])
    expected = CacheMap.from_bytes(stored.to_bytes(16)).transform(inputs)
    for cells in (predicted, read):
        assert list(cells) == list(expected)
        for site, of in expected.items():
            torch.testing.assert_close(torch.tensor(cells[site]), of)
    assert facts["facts"] == [500, pytest.approx([0.183, 0.133, 0.233])]
    assert reads == stored.reads


def test_what_is_measured_of_caches_is_logged(bench: Bench, made_up: Maker) -> None:
    matrix = made_up(2, caches=True)
    tracked = bench.track(matrix)
    assert len(tracked.versions) == 4
    (child,) = (
        run
        for run in bench.runs(tracked)
        if run.data.tags.get("cargo") == "kv_cache" and run.data.tags["source"] == KEY[0]
    )
    assert {"site", "role", "address.vector"}.isdisjoint(child.data.tags)
    for name, value in {
        "retention": 0.587,
        "tokens_low": 0.133,
        "control.another-text": -0.31,
        "again.0.25.retention": 0.774,
        "content.source_code.gain": 0.581,
        "content.prose.retention_high": 0.66,
        "cached_characters": 500,
    }.items():
        assert child.data.metrics[name] == pytest.approx(value)
    assert "content.dialogue.retention" not in child.data.metrics
    maps = bench.files(matrix)
    (maps[matrix.cells[2].key] / "cache_map.json").unlink()
    with pytest.raises(TrackingError, match=r"kv_cache--continuation: cache_map\.json missing"):
        bench.track(matrix)


def test_what_is_not_there_is_said_in_one_line(
    bench: Bench, made_up: Maker, tmp_path: Path
) -> None:
    matrix = made_up(2)
    to = tmp_path / "got"
    bench.track(matrix)
    with pytest.raises(TrackingError, match=f"no registered model x; there are: .*{NAME}"):
        pull("x", CHAMPION, uri=bench.uri, to=to)
    with pytest.raises(TrackingError, match=r"no alias or version 7; there are: champion, 1$"):
        pull(NAME, "7", uri=bench.uri, to=to)
    nowhere = tmp_path / "nowhere" / "mlflow.db"
    with pytest.raises(TrackingError, match="run a sweep first"):
        pull(NAME, CHAMPION, uri=f"sqlite:///{nowhere}", to=to)
    assert not nowhere.parent.exists(), "looking makes no store"
    with pytest.raises(TrackingError, match="not one of sqlite:///file, http"):
        pull(NAME, CHAMPION, uri="mlruns", to=to)
    to.mkdir()
    (to / "mine.txt").write_text("mine")
    with pytest.raises(TrackingError, match="already there"):
        pull(NAME, CHAMPION, uri=bench.uri, to=to)
    maps = bench.files(matrix)
    (maps[KEY] / "vector.safetensors").unlink()
    with pytest.raises(TrackingError, match=rf"{NAME}: vector\.safetensors missing"):
        bench.track(matrix)


def test_a_deleted_experiment_is_said_in_one_line(bench: Bench, made_up: Maker) -> None:
    tracked = bench.track(made_up(2))
    bench.client().delete_experiment(tracked.experiment_id)
    with pytest.raises(TrackingError, match="experiment demo was deleted"):
        bench.track(made_up(2))
