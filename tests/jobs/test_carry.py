"""A user's own steering vector, carried as a user does it: after a sweep, and without one."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from actors.cargo.formats import FORMATS, read_vectors
from actors.cargo.vectors import SteeringVectors
from actors.checkpoints import facts
from actors.folder import report_address
from alignment.fitters import FITTERS
from alignment.maps import Affine, map_from_bytes
from cluster.storage import DirectoryStore
from evaluation.matrix import Matrix
from evaluation.tracking import track
from jobs.bridges import Bridges
from jobs.carry import Wish, carry_steering
from jobs.config import Tracking, read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from tests.deprecated import MLFLOW
from tests.sweeps import PATIENCE, Result, command, environment

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    *MLFLOW,
]

SOURCE, TARGET = "tiny-llama", "tiny-gemma"
WIDTH, TARGET_WIDTH = 32, 48
MAPPED = ["residual.1", "residual.2"]  # where the roles of the run are, in both models


def vector(seed: int = 0, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(width).astype(np.float32)


def plain(path: Path, layer: int = 1, **metadata: str) -> Path:
    """A file of one vector, as others write it."""
    save_file({f"layer.{layer}": vector()}, path, metadata)
    return path


def carry(file: Path, run: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the verb as a user does; what it says of its progress goes to stderr."""
    ends = () if "--from" in more else ("--from", SOURCE, "--to", TARGET)
    said = ("--run", str(run), "--out", str(out), *ends, *more)
    return subprocess.run(
        command("carry", "steering", str(file), *said),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def succeed(file: Path, run: Path, out: Path, *more: str) -> tuple[str, list[dict[str, Any]]]:
    """What the verb says, and what its record says was carried."""
    ran = carry(file, run, out, *more)
    assert ran.returncode == 0, ran.stderr
    record = json.loads((out / "carried.json").read_text())
    assert record["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len((out / "README.txt").read_text().splitlines()) == 5
    return ran.stdout, record["carried"]


def through(store: DirectoryStore, address: str, given: np.ndarray) -> np.ndarray:
    """The vector pushed forward by a map, as long as a typical activation of the target."""
    report = json.loads(store.get(report_address(address)))
    pushed = map_from_bytes(store.get(address)).pushforward(torch.from_numpy(given)[None])[0]
    return (pushed / pushed.norm() * report["target_spread"]).numpy()


def best_fitted(cell: dict[str, Any]) -> float:
    """The R² of the fitter that does best on held-out anchors, where the sweep steered."""
    return max(way["held_out_r2"] for way in cell["ways"] if way["name"] in FITTERS)


@pytest.fixture
def cell(undisturbed: Result) -> dict[str, Any]:
    """What the sweep tracked from the first model into the second."""
    (found,) = [cell for cell in undisturbed.matrix["cells"] if cell["source"] == SOURCE]
    return found


# --- after a sweep


def test_a_vector_goes_by_the_map_that_is_tracked(
    undisturbed: Result, cell: dict[str, Any], tmp_path: Path
) -> None:
    # The models are equally deep: the site of the source is called as the target's.
    site, out = cell["site"], tmp_path / "out"
    file = plain(tmp_path / "mine.safetensors", int(site.partition(".")[2]))
    said, (record,) = succeed(file, undisturbed.run, out)
    assert (record["source_site"], record["target_site"]) == (site, site)
    if cell["way"] in FITTERS:
        name = f"{SOURCE}--{TARGET}--steering--sentiment@1"
        assert (record["map"], record["map_address"]) == (name, cell["map_address"])
        assert record["held_out_r2"] == pytest.approx(cell["held_out_r2"])
        assert name in said
    else:  # dev chose to carry the vector as it is: that is no map
        assert record["map"] == "fitted, not tracked"
        assert record["held_out_r2"] == best_fitted(cell)

    store = DirectoryStore(undisturbed.run.parent / "store")
    expected = through(store, record["map_address"], vector())
    found = read_vectors(out / "steering.safetensors", layers=3)
    np.testing.assert_allclose(found.vectors[site], expected, rtol=1e-5)
    assert np.linalg.norm(found.vectors[site]) == pytest.approx(found.spreads[site], rel=1e-6)
    models = {model["name"]: model for model in undisturbed.matrix["models"]}
    assert found.fingerprint == models[TARGET]["fingerprint"]
    # In the format that came in, too.
    again = load_file(out / "layers.safetensors")
    assert again[f"layer.{site.partition('.')[2]}"].tobytes() == found.vectors[site].tobytes()


def test_of_several_tracked_maps_the_one_of_the_concept_is_taken_or_the_best(
    undisturbed: Result, cell: dict[str, Any], tmp_path: Path
) -> None:
    swept = Matrix.from_json(json.dumps(undisturbed.matrix))
    tracked = {"sentiment": ("ridge", 0.2), "formality": ("ridge", 0.4), "myopia": ("direct", 0.9)}
    cells = [
        swept.cell(SOURCE, TARGET, "steering", "sentiment").model_copy(
            update={"concept": concept, "way": way, "held_out_r2": r2, "map_address": concept}
        )
        for concept, (way, r2) in tracked.items()
    ]
    files, scale = {}, np.float32(3)
    for number, each in enumerate(cells):
        files[each.key] = tmp_path / each.concept
        weight = torch.full((TARGET_WIDTH, WIDTH), float(number))
        Affine(weight, torch.zeros(TARGET_WIDTH)).save(files[each.key])
        along = vector(width=TARGET_WIDTH)
        pushed = scale * along / np.linalg.norm(along)
        save_file({"vector": pushed}, files[each.key] / "vector.safetensors")
    several = swept.model_copy(update={"address": "ab" * 32, "cells": tuple(cells)})
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    track(several, uri=uri, experiment="several", maps=files, routed={}, page=undisturbed.run)

    run = read_run_file(undisturbed.run).model_copy(update={"tracking": Tracking(uri=uri)})
    source, target = (
        facts(spec.directory, spec.name, spec.dtype) for spec in run.models if spec.directory
    )
    bridges = Bridges(run, source, target, Reporter())
    for concept, taken in {"sentiment": 0, "formality": 1, "myopia": 1, None: 1}.items():
        (bridge,) = bridges.of([cell["site"]], concept)
        name = ("sentiment", "formality")[taken]
        assert bridge.tracked == f"{SOURCE}--{TARGET}--steering--{name}@1"
        assert (bridge.address, bridge.fitter) == (name, "ridge")
        assert bridge.held_out_r2 == tracked[name][1]
        assert bridge.target_spread == pytest.approx(3)
        assert isinstance(bridge.map, Affine)
        assert float(bridge.map.weight[0, 0]) == taken


def test_every_layer_that_has_a_map_is_carried_and_back_again(
    undisturbed: Result, cell: dict[str, Any], tmp_path: Path
) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    file = tmp_path / "mine.safetensors"
    every = {f"residual.{layer}": vector(layer) for layer in range(3)}
    FORMATS["isthmus"].write(SteeringVectors(every, concept="warmth"), file)
    said, records = succeed(file, undisturbed.run, out, "--format", "gguf")
    assert sorted(record["source_site"] for record in records) == MAPPED
    assert "left     residual.0 (no map leads from there yet)" in said
    store = DirectoryStore(undisturbed.run.parent / "store")
    found = read_vectors(out / "steering.gguf", layers=3)
    assert (found.model, found.concept) == ("gemma3_text", "warmth")
    for record in records:
        expected = through(store, record["map_address"], every[record["source_site"]])
        found_there = found.vectors[record["target_site"]]
        np.testing.assert_allclose(found_there, expected, rtol=1e-5)

    ends = ("--from", TARGET, "--to", SOURCE, "--site", MAPPED[0])
    _, (record,) = succeed(out / "steering.gguf", undisturbed.run, back, *ends)
    assert record["target_site"] == MAPPED[0]
    assert read_vectors(back / "steering.gguf", layers=3).vectors[MAPPED[0]].shape == (WIDTH,)


def test_what_cannot_be_carried_ends_with_one_line_and_leaves_nothing(
    undisturbed: Result, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("")
    pickled = tmp_path / "mine.pt"
    torch.save({1: torch.ones(WIDTH)}, pickled)
    unmapped = plain(tmp_path / "unmapped", 0)
    before = sorted(tmp_path.rglob("*"))
    refused = {
        (pickled, tmp_path / "out"): f"{pickled}: a pickle (torch.save), which can run any code",
        (unmapped, there): f"{there} is already there: give another directory, or remove it",
        (unmapped, tmp_path / "out"): (
            f"no map leads from residual.0 of {SOURCE} to {TARGET}; maps lead from residual.1, "
            "residual.2: take the vector at one of these"
        ),
    }
    for (file, out), line in refused.items():
        ran = carry(file, undisturbed.run, out)
        assert ran.returncode == 2, ran.stderr
        assert ran.stdout == ""
        assert ran.stderr.splitlines()[-1].startswith(line)
        assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_vector_that_is_not_one_of_the_source(undisturbed: Result, tmp_path: Path) -> None:
    def refusal(file: Path, **asked: Any) -> str:
        wish: dict[str, Any] = {"source": SOURCE, "target": TARGET, "run": undisturbed.run} | asked
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError) as refused:  # noqa: PT011  (of any room: the line tells)
            carry_steering(Wish(file, out=tmp_path / "out", **wish), Reporter())
        assert sorted(tmp_path.rglob("*")) == before
        line = str(refused.value)
        assert "\n" not in line
        return line.removeprefix(f"{file}: ")

    mine = plain(tmp_path / "mine")
    assert refusal(mine, source=TARGET, target=SOURCE) == (
        f"residual.1: the vector has {WIDTH} numbers, {TARGET} has {TARGET_WIDTH} there"
    )
    assert refusal(mine, target=SOURCE) == (
        f"{SOURCE} and {SOURCE} are the same model: nothing to carry"
    )
    assert refusal(mine, site="residual.2") == "no vector at residual.2; there are: residual.1"
    assert refusal(mine, format="pickle") == (
        "no format 'pickle'; allowed: gguf, isthmus, safetensors"
    )
    assert "models of the run: tiny-llama, tiny-gemma" in refusal(mine, source="tiny-lama")
    other = plain(tmp_path / "other", fingerprint="cd" * 32)
    assert refusal(other).startswith(f"made for another revision of {SOURCE}: fingerprint cdcdcd")
    deep = plain(tmp_path / "deep", 3)
    assert refusal(deep) == "layer 3: the model has layers 0 to 2 (-1 is the last)"
    save_file({"layer.1": np.zeros(WIDTH, np.float32)}, tmp_path / "zero")
    assert refusal(tmp_path / "zero") == "residual.1: the vector is zero, it has no direction"
    # Without a run file models are named as in other verbs, here by their directories.
    named = {each.name: str(each.directory) for each in read_run_file(undisturbed.run).models}
    assert refusal(mine, source=named[TARGET], target=named[SOURCE], run=None).startswith(
        f"residual.1: the vector has {WIDTH} numbers"
    )


# --- without one


def test_where_no_map_is_one_is_fitted_as_a_sweep_fits_it(
    undisturbed: Result, cell: dict[str, Any], tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    run, out = tiny_run(tmp_path / "home"), tmp_path / "out"
    file = plain(tmp_path / "mine.safetensors", int(cell["site"].partition(".")[2]))
    said, (record,) = succeed(file, run, out)
    assert "not tracked" in said
    assert record["held_out_r2"] == best_fitted(cell)
    # All that it keeps is what the sweep kept; nothing is tracked, and no page drawn.
    kept = {path.name: path.read_bytes() for path in (run.parent / "store/blobs").rglob("*/*")}
    assert DirectoryStore(run.parent / "store").has(record["map_address"])
    assert kept.items() <= undisturbed.blobs.items()
    assert sorted(path.name for path in run.parent.iterdir()) == ["run.yaml", "store"]
