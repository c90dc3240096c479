"""A whole sweep as a user runs it, undisturbed and disturbed: the numbers are the same, to the bit.

Every sweep is a process of its own, and only processes that it started are killed.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.maps import Affine, Map
from cluster.storage import DirectoryStore
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.sweep import SECONDS_FILE
from tests.object_server import Gateway
from tests.sweeps import PATIENCE, Driver, Result, assert_same, command, environment, moments

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def tracked(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every run, metric and model version of the store that a run file names."""
    database = read_run_file(run).tracking_uri.removeprefix("sqlite:///")
    asked = {
        "runs": "select run_uuid, name, status from runs",
        "metrics": "select run_uuid, key, value, timestamp, step from metrics",
        "versions": "select name, version, storage_location from model_versions",
        "aliases": "select name, alias, version from registered_model_aliases",
    }
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = {name: sorted(connection.execute(sql)) for name, sql in asked.items()}
    connection.close()
    return found


# --- undisturbed


def test_a_sweep_leaves_a_matrix_of_every_ordered_pair_and_its_page(undisturbed: Result) -> None:
    pairs = [("tiny-llama", "tiny-gemma"), ("tiny-gemma", "tiny-llama")]
    cells = undisturbed.matrix["cells"]
    assert [(cell["source"], cell["target"]) for cell in cells] == pairs
    likes = undisturbed.matrix["similarities"]
    assert sorted((like["source"], like["target"]) for like in likes) == sorted(pairs)
    assert all(len(like["cka"]) == len(like["cka"][0]) == 3 for like in likes)
    for cell in cells:
        names = {control["name"] for control in cell["controls"]}
        assert cell["retention"] is None or {"random directions", "shuffled rows"} <= names
        ways = [way["name"] for way in cell["ways"]]
        assert ways == ["direct", "scaled", "ridge", "procrustes"]
        assert cell["way"] in ways
        assert len(cell["samples"]) == 2
        native = {point["strength"]: point["native"] for point in cell["curve"]}
        assert list(native) == sorted(native)
        (place,) = (each for each in cell["places"] if each["site"] == cell["site"])
        there, against = native[cell["strength"]], native[-cell["strength"]]
        assert (there - against) / 2 == pytest.approx(place["native"])
    assert undisturbed.matrix["anchors"]["texts"] == 240
    page = (undisturbed.run.parent / "runs/tiny/index.html").read_text()
    assert page.startswith("<!doctype html>")
    assert all(name in page for pair in pairs for name in pair)
    assert f"page     file://{undisturbed.run.parent}/runs/tiny/index.html" in undisturbed.said


def test_a_sweep_is_tracked_with_a_run_and_a_model_for_each_pair(undisturbed: Result) -> None:
    store = tracked(undisturbed.run)
    models = [
        f"{source}--{target}--steering--sentiment"
        for source, target in (("tiny-gemma", "tiny-llama"), ("tiny-llama", "tiny-gemma"))
    ]
    assert {name for _, name, _ in store["runs"]} == {"tiny", *models}
    assert len(store["runs"]) == 3
    assert {status for *_, status in store["runs"]} == {"FINISHED"}
    assert [(name, version) for name, version, _ in store["versions"]] == [
        (name, 1) for name in models
    ]
    assert store["aliases"] == [(name, "champion", 1) for name in models]
    assert {key for _, key, *_ in store["metrics"]} >= {"retention", "control.shuffled-rows"}


def test_a_map_is_pulled_and_a_page_is_drawn_again(undisturbed: Result, tmp_path: Path) -> None:
    home, to = undisturbed.run.parent, tmp_path / "pulled"
    name = "tiny-llama--tiny-gemma--steering--sentiment@champion"
    uri = read_run_file(undisturbed.run).tracking_uri
    pull = command("pull", name, "--to", str(to), "--uri", uri)
    subprocess.run(pull, cwd=ROOT, env=environment(), check=True, timeout=PATIENCE)
    assert (to / "README.txt").is_file()
    pulled = Map.load_map(next(to.rglob("map.json")).parent)
    assert isinstance(pulled, Affine)
    assert (pulled.source_width, pulled.target_width) == (32, 48)
    cell = undisturbed.matrix["cells"][0]
    assert pulled.to_bytes() == DirectoryStore(home / "store").get(cell["map_address"])

    page = tmp_path / "pages" / "again.html"
    matrix = home / "runs/tiny/matrix.json"
    report = command("report", str(matrix), "--to", str(page))
    subprocess.run(report, cwd=ROOT, env=environment(), check=True, timeout=PATIENCE)
    assert page.read_bytes() == (home / "runs/tiny/index.html").read_bytes()


def test_a_second_run_asks_nothing_and_changes_nothing(
    undisturbed: Result, start: Callable[[Path], Driver]
) -> None:
    before = tracked(undisturbed.run)
    blobs = undisturbed.run.parent / "store/blobs"
    written = {file: file.stat().st_mtime_ns for file in blobs.rglob("*")}
    again = Result.of(undisturbed.run, start(undisturbed.run).finish())
    assert_same(again, undisturbed)
    assert {file: file.stat().st_mtime_ns for file in blobs.rglob("*")} == written
    assert tracked(undisturbed.run) == before
    # Every stage that asks something of a process had all of its answers there. (The first run
    # finds some of its own: the way that was tried at every place is one of the ways to carry.)
    begun = re.compile(r"^(.+?)(?:, (\d+) of (\d+) there already)? \.\.\.$", re.MULTILINE)
    stages = [stage for stage, *_ in begun.findall(undisturbed.said)]
    working = stages[stages.index("reading anchors") : stages.index("drawing the page")]
    there = {stage: (done, of) for stage, done, of in begun.findall(again.said)}
    for stage in working:
        done, of = there[stage]
        assert done == of != ""


@pytest.mark.long
def test_a_model_that_joins_costs_its_own_pairs(
    undisturbed: Result,
    tiny_run: Callable[..., Path],
    start: Callable[[Path], Driver],
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    shutil.copytree(undisturbed.run.parent / "store", home / "store")
    more = Result.of(run := tiny_run(home, models=3), start(run).finish())
    cells = {(cell["source"], cell["target"]): cell for cell in more.matrix["cells"]}
    assert len(cells) == 6
    for cell in undisturbed.matrix["cells"]:
        now = cells[cell["source"], cell["target"]]
        same = ("map_address", "vector_address", "site", "strength", "native", "carried")
        assert {name: now[name] for name in same} == {name: cell[name] for name in same}
    assert undisturbed.blobs.items() <= more.blobs.items(), "nothing that was there is made anew"
    begun = re.compile(r"^fitting maps, (\d+) of (\d+) there already \.\.\.$", re.MULTILINE)
    ((there, of),) = begun.findall(more.said)
    assert 3 * int(there) == int(of), "two of six pairs"


# --- disturbed


def test_workers_killed_while_anchors_are_read_leave_no_trace(
    same_run: Path, undisturbed: Result, start: Callable[[Path], Driver]
) -> None:
    store, expected = DirectoryStore(same_run.parent / "store"), moments(same_run)

    def done() -> int:
        return sum(store.has(to) for to in expected)

    driver = start(same_run)
    for victim, after in (("host-tiny-llama.", 1), ("folder-moments.", len(expected) // 4)):
        driver.wait_for(lambda after=after: done() >= after)
        # It is held, so that the kill hits it at work: the stream waits for it.
        process = driver.wait_for(lambda victim=victim: driver.doing(victim))
        process.suspend()
        assert done() < len(expected)
        process.kill()
    said = driver.finish()
    assert said.count("a worker was lost; its open shards are read again") == 1
    assert_same(Result.of(same_run, said), undisturbed)


@pytest.mark.long
def test_a_driver_killed_and_interrupted_goes_on_to_the_same_numbers(
    same_run: Path, undisturbed: Result, start: Callable[[Path], Driver]
) -> None:
    before = tracked(same_run)
    store, expected = DirectoryStore(same_run.parent / "store"), moments(same_run)
    killed = start(same_run)
    killed.wait_for(lambda: sum(store.has(to) for to in expected) >= len(expected) // 4)
    killed.kill()
    assert not all(store.has(to) for to in expected)

    stopped = start(same_run)
    stopped.wait_to_hear("fitting maps: done")
    assert "reading anchors, " in stopped.said()  # it did not begin from nothing
    assert stopped.started()
    os.killpg(stopped.process.pid, signal.SIGINT)  # as a terminal does
    assert stopped.process.wait(PATIENCE) == 130
    *_, last = stopped.said().splitlines()
    assert last == "stopped; run the same command to go on"
    assert "Traceback" not in stopped.said()
    written = {of.name for of in (same_run.parent / "runs").rglob("*") if of.is_file()}
    assert written == {SECONDS_FILE}, "nothing half-written"
    deadline = time.monotonic() + 30
    while alive := stopped.started():
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)

    assert_same(Result.of(same_run, start(same_run).finish()), undisturbed)
    assert tracked(same_run) == before


# --- elsewhere


@pytest.mark.long
def test_a_sweep_into_s3_leaves_the_blobs_of_a_directory(
    tmp_path: Path,
    tiny_run: Callable[..., Path],
    undisturbed: Result,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[[Path], Driver],
) -> None:
    for name, value in gateway.environment().items():
        monkeypatch.setenv(name, value)
    bucket, uri = gateway.bucket(), read_run_file(undisturbed.run).tracking_uri
    run = tiny_run(tmp_path / "home", tracking={"uri": uri}, store=f"s3://{bucket}/tiny")
    said = start(run).finish()
    client, blobs = gateway.client(), {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for key in (each["Key"] for each in page["Contents"]):
            content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            blobs[key.rpartition("/")[2]] = content
    matrix = json.loads((run.parent / "runs/tiny/matrix.json").read_text())
    assert_same(Result(run, said, blobs, matrix), undisturbed)
    assert not (run.parent / "store").exists()


def test_a_store_that_cannot_be_used_ends_a_sweep_with_one_line(
    tmp_path: Path, tiny_run: Callable[..., Path], start: Callable[[Path], Driver]
) -> None:
    (tmp_path / "file").write_text("")
    driver = start(tiny_run(tmp_path / "home", store=str(tmp_path / "file")))
    assert driver.process.wait(PATIENCE) == 2
    *_, last = driver.said().splitlines()
    assert last.startswith(f"{tmp_path}/file/blobs/")
    assert last.endswith(": Not a directory")
    assert "Traceback" not in driver.said()
