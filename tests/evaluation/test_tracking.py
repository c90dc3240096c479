"""Tracking on a real SQLite store."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run

from evaluation.matrix import Matrix, PriorScore
from evaluation.record import model_name
from evaluation.retention import Interval
from evaluation.routes import Route
from evaluation.tracking import CHAMPION, TrackedRun, TrackingError, best, pull
from tests.deprecated import MLFLOW
from tests.tracking_bench import KEY, NAME, Bench

Maker = Callable[..., Matrix]

pytestmark = [*MLFLOW]


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


def test_the_best_of_what_is_asked_for_is_found(bench: Bench, made_up: Maker) -> None:
    for index, kept in enumerate((0.8, 0.93, None)):
        bench.track(made_up(3, address=str(index), first=kept))
    source, target, cargo, concept = KEY
    asked = {"source": source, "target": target, "cargo": cargo}
    assert best(bench.uri, asked) == (NAME, "2")
    assert best(bench.uri, {**asked, "concept": concept}) == (NAME, "2")
    assert best(bench.uri, {"cargo": cargo}) == (NAME, "2")
    back = model_name(target, source, cargo, concept)
    assert best(bench.uri, {**asked, "source": target, "target": source}) == (back, "3"), (
        "the newest of equals"
    )
    with pytest.raises(TrackingError) as caught:
        best(bench.uri, {"source": target, "cargo": "lora"})
    (line,) = str(caught.value).splitlines()
    begins = f"nothing with a real native effect is registered of source {target}, cargo lora"
    assert line.startswith(begins)


def test_what_does_too_much_or_what_chance_does_is_no_better(bench: Bench, made_up: Maker) -> None:
    def sweep(kept: float, address: str, p: float = 0.0) -> Matrix:
        matrix = made_up(2, address=address, first=kept)
        cell = matrix.cell(*KEY).model_copy(update={"native_p": p})
        return matrix.model_copy(update={"cells": (cell,)})

    champions = []
    for index, (kept, p) in enumerate(((2.5, 0.6), (0.9, 0.0), (1.0, 0.6), (2.5, 0.0))):
        bench.track(sweep(kept, str(index), p))
        champions.append(bench.champion())
    assert champions == ["1", "2", "2", "2"]
    assert best(bench.uri, {"cargo": "steering"}) == (NAME, "2")


def with_routes(matrix: Matrix, routed: float) -> Matrix:
    """One route into the second model that is recommended, and one out of it that is not."""
    first, second, third = (model.name for model in matrix.models)
    kept, more, none = (Interval(of, of - 0.1, of + 0.1) for of in (routed, 0.2, 0.05))
    routes = tuple(
        Route(
            source=one, target=other, cargo="steering", concept="sentiment",
            path=(one, third, other), expected=0.5, direct=kept, routed=kept, gain=gain, others=(),
        )
        for one, other, gain in ((first, second, more), (second, first, none))
    )  # fmt: skip
    return matrix.model_copy(update={"routes": routes})


def test_a_recommended_route_is_a_version_beside_the_direct_one(
    bench: Bench, made_up: Maker, tmp_path: Path
) -> None:
    for address, first, routed, champion in (("a", 0.7, 0.9, "2"), ("b", 0.95, 0.9, "3")):
        matrix = with_routes(made_up(3, address=address, first=first), routed)
        path = f"{NAME} through {matrix.models[2].name}"
        tracked = bench.track(matrix)
        assert bench.track(matrix) == tracked, "the same matrix again changes nothing"
        assert {tracked.versions[NAME], tracked.versions[path]} == (
            {"1", "2"} if address == "a" else {"3", "4"}
        )
        assert [part for part in tracked.versions if "through" in part] == [path]
        assert bench.champion() == champion
        asked = {"cargo": "steering", "target": matrix.models[1].name}
        assert best(bench.uri, asked) == (NAME, champion)
    told = (pull(NAME, "2", uri=bench.uri, to=tmp_path / "got") / "README.txt").read_text()
    assert f"(through {matrix.models[2].name})" in told
    facts = json.loads((tmp_path / "got" / "artifacts" / "cargo" / "cargo.json").read_text())
    assert facts["path"].split(" > ") == [matrix.models[at].name for at in (0, 2, 1)]
    assert (facts["retention"][0], facts["level"]) == (0.9, "Good")


def test_routes_and_what_was_known_before_can_be_searched_for(bench: Bench, made_up: Maker) -> None:
    matrix = with_routes(made_up(3), 0.4)
    first, second, third = (model.name for model in matrix.models)
    priors = (PriorScore(source=first, target=second, score=0.7),)
    tracked = bench.track(matrix.model_copy(update={"priors": priors}))
    parent = bench.client().get_run(tracked.run_id).data
    name = model_name(first, second, "steering", "sentiment")
    assert parent.metrics[f"route.{name}.gain_low"] == pytest.approx(0.1)
    assert [value for key, value in parent.tags.items() if key.startswith("route.")] == [
        f"{first} > {third} > {second}"
    ]
    found = bench.client().search_runs([tracked.experiment_id], "metrics.prior > 0.6")
    assert [run.data.tags["source"] for run in found] == [first]
    assert "alikeness" in found[0].data.metrics


def test_of_more_models_than_a_page_holds_each_is_found(
    bench: Bench, made_up: Maker, tmp_path: Path
) -> None:
    tracked = bench.track(made_up(2))
    for number in range(101):
        bench.client().create_registered_model(f"a--b--steering--{number}")
    assert len(tracked.versions) == 2
    for name in tracked.versions:
        assert pull(name, CHAMPION, uri=bench.uri, to=tmp_path / name).is_dir()
    with pytest.raises(TrackingError, match=f"no registered model nobody; .*100.*{NAME}"):
        pull("nobody", CHAMPION, uri=bench.uri, to=tmp_path / "nobody")


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


def of_first_pair(bench: Bench, tracked: TrackedRun, cargo: str) -> Run:
    (child,) = (
        run
        for run in bench.runs(tracked)
        if run.data.tags.get("cargo") == cargo and run.data.tags["source"] == KEY[0]
    )
    return child


def test_what_is_measured_of_adapters_is_logged(bench: Bench, made_up: Maker) -> None:
    tracked = bench.track(made_up(2, skills=("rust",)))
    child = of_first_pair(bench, tracked, "lora")
    for name, value in {
        "retention": 0.812,
        "control.shuffled-teacher_high": 0.033,
        "way.refit-on-anchors.retention": 0.331,
        "way.refit-on-own-texts.tokens": 7_912,
        "native.tokens": 80_120,
        "safety.drift": 0.06,
        "native.safety.drift_high": 0.21,
        "rank": 8,
    }.items():
        assert child.data.metrics[name] == pytest.approx(value)
    assert "held_out_r2" not in child.data.metrics


def test_what_is_measured_of_latents_is_logged(bench: Bench, made_up: Maker) -> None:
    tracked = bench.track(made_up(2, latents=True))
    child = of_first_pair(bench, tracked, "soft_prompt")
    for name, value in {
        "retention": 0.957,
        "control.mean-latents": 0.01,
        "way.joining-later.retention": 0.8613,
        "way.joint-training.tokens": 154_200,
        "relay_high": 0.762,
        "of_bytes": 0.418,
        "native.tokens": 61_440,
        "learned": 171_392,
        "count": 16,
    }.items():
        assert child.data.metrics[name] == pytest.approx(value)
    assert child.data.tags["site"] == "residual.19"


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
