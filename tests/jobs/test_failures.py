"""What goes wrong in a sweep leaves no trace in its numbers, or ends it with one line that says so.

Hosts, folders and drivers that are killed are in test_sweep.py, nodes in test_nodes.py.
"""

import math
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from cluster.storage import DirectoryStore
from jobs.names import ROOT
from tests.mounts import in_file_system_of
from tests.sweeps import (
    PATIENCE,
    Driver,
    Result,
    assert_same,
    change,
    command,
    environment,
    moments,
    run_script,
)

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
POISONED = "model.layers.1.mlp.down_proj.weight"
PAGE = 4096

# Reads the anchors of a run while nobody folds, until Ray has had to spill (or for SECONDS), and
# says how many bytes it spilled.
HARVEST = """
import os, signal, sys, threading, time
from pathlib import Path
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray._private.worker import global_worker
from cluster.session import session
from cluster.storage import open_store
from jobs.config import read_run_file
from jobs.harvest import Harvest, folders
from jobs.progress import Reporter
from jobs.texts import gather
from jobs.waves import crew
from jobs.work import make_work

run, mib, seconds = read_run_file(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
reporter, store = Reporter(), open_store(run.store_location)
texts = gather(run)

with session("local", object_store_mib=mib) as cluster:
    home = Path(global_worker.node.get_session_dir_path())
    with crew(run, texts, cluster, reporter) as models, folders(run, store) as workers:
        (wave,) = models.waves
        models.live(wave)
        work = make_work(run, texts.anchors, models.facts)
        folder, = workers[0].pids()

        def hold_up():
            until = time.monotonic() + seconds
            # Ray itself would ask all its workers, of which one cannot answer.
            while time.monotonic() < until and not any(home.glob("ray_spilled_objects*/*")):
                time.sleep(0.2)
            os.kill(folder, signal.SIGCONT)

        os.kill(folder, signal.SIGSTOP)
        held_up = threading.Thread(target=hold_up)
        held_up.start()
        Harvest(run, models, store, *workers, reporter).read(work, wave)
        held_up.join()
        state = get_state_from_address(cluster.address)
        print(get_memory_info_reply(state).store_stats.spilled_bytes_total)
"""


# --- one rank of several


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Result:
    """What a sweep leaves whose first model lies over two ranks."""
    run = over_two_ranks(tiny_run, tmp_path_factory.mktemp("sharded"))
    return Result.of(run, Driver(run).finish())


def over_two_ranks(tiny_run: Callable[..., Path], home: Path) -> Path:
    return tiny_run(home, cluster={"cpus_per_model": 0.5, "ranks": {"tiny-llama": 2}})


def test_a_rank_killed_at_its_work_leaves_no_trace(
    sharded: Result,
    undisturbed: Result,
    tmp_path: Path,
    tiny_run: Callable[..., Path],
    start: Callable[..., Driver],
) -> None:
    run = over_two_ranks(tiny_run, tmp_path / "home")
    store, expected = DirectoryStore(run.parent / "store"), moments(run)

    def done() -> int:
        return sum(store.has(to) for to in expected)

    driver = start(run)
    driver.wait_for(lambda: done() >= len(expected) // 4)
    rank = driver.wait_for(lambda: driver.doing("host-tiny-llama."))
    # It is held, so that the other rank waits for it in the middle of a pass.
    rank.suspend()
    time.sleep(1)
    assert done() < len(expected)
    rank.kill()
    said = driver.finish()
    assert said.count("a worker was lost; its open shards are read again") == 1
    assert "Error" not in said
    assert_same(Result.of(run, said), sharded)
    # It lay over two ranks indeed: the addresses are those of one process, the bits are not.
    assert any(sharded.blobs[to] != undisturbed.blobs[to] for to in expected)


# --- memory


def test_more_data_than_the_object_store_holds_is_spilled_and_comes_back(
    tmp_path: Path,
    corpora: Path,
    tiny_run: Callable[..., Path],
    new_checkpoint: Callable[..., Path],
) -> None:
    lines = (corpora / "anchors.txt").read_text().splitlines()
    wide = {
        name: new_checkpoint(tmp_path / name, family, lines, tokens=500, width=512)
        for name, family in (("wide-llama", "llama"), ("wide-qwen", "qwen2"))
    }
    anchors = {"texts": 720, "shard_texts": 180, "batch_texts": 60}

    def harvested(home: Path, mib: int, seconds: float) -> tuple[dict[str, bytes], int]:
        run = tiny_run(
            home,
            anchors={"corpora": [{"file": str(corpora / "anchors.txt")}], **anchors},
            maps={"roles": ["feature_extraction", "representation", "decision_making"]},
            cluster={"cpus_per_model": 0.5, "in_flight": 64},
        )
        change(run, models=[{"name": name, "directory": str(at)} for name, at in wide.items()])
        ran = run_script(HARVEST, str(run), str(mib), str(seconds))
        return blobs(home / "store"), int(ran.stdout)

    roomy, not_spilled = harvested(tmp_path / "roomy", mib=512, seconds=0)
    # The least that Ray can work with.
    tight, spilled = harvested(tmp_path / "tight", mib=75, seconds=60)
    assert not_spilled == 0
    assert spilled > 0
    assert len(roomy) == 4 * 3 + 1
    assert tight == roomy


# --- numbers that are none


def test_what_is_not_finite_is_named_and_not_folded(
    undisturbed: Result,
    same_run: Path,
    tmp_path: Path,
    start: Callable[..., Driver],
) -> None:
    first, *others = yaml.safe_load(same_run.read_text())["models"]
    healthy = Path(first["directory"])
    broken = shutil.copytree(healthy, tmp_path / "model")
    tensors = load_file(broken / "model.safetensors")
    tensors[POISONED][3, 5] = float("inf")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    change(same_run, models=[first | {"directory": str(broken)}, *others])

    last = start(same_run).stopped()
    assert last.startswith("model tiny-llama, batch 0/0, site residual.1: ")
    assert last.endswith(" rows are not finite (NaN or Inf, computed in float32)")
    assert blobs(same_run.parent / "store") == {}

    shutil.copy(healthy / "model.safetensors", broken)
    assert_same(Result.of(same_run, start(same_run).finish()), undisturbed)


# --- a full disk


def test_a_full_disk_ends_a_sweep_which_goes_on_when_there_is_room(
    undisturbed: Result, same_run: Path, tmp_path: Path
) -> None:
    store = same_run.parent / "store"
    store.mkdir()
    whole = sum(PAGE * math.ceil(len(blob) / PAGE) for blob in undisturbed.blobs.values())
    # What is mounted is seen in there alone, and gone at the end: so it is copied out.
    steps = f"""
        "$@" > {tmp_path}/first.txt 2>&1
        echo $?
        cp -r {store} {tmp_path}/full
        mount -o remount,size=1g {store} || exit 9
        "$@" > {tmp_path}/second.txt 2>&1
        echo $?
        cp -r {store}/. {tmp_path}/whole
    """
    ran = subprocess.run(
        in_file_system_of(whole // 2, store, steps, *command("sweep", str(same_run))),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    said = (tmp_path / "first.txt").read_text()
    assert ran.stdout.split() == ["2", "0"], (ran, said)
    *_, last = said.splitlines()
    assert last == (
        f"the file system {store} is full, and the store {store} is on it: free some space there "
        "and run again; what is stored is kept"
    )
    assert "Traceback" not in said
    full = blobs(tmp_path / "full")
    assert full.items() < undisturbed.blobs.items()
    assert len(full) > 0
    shutil.rmtree(store)
    shutil.move(tmp_path / "whole", store)
    again = (tmp_path / "second.txt").read_text()
    assert " there already ..." in again
    assert_same(Result.of(same_run, again), undisturbed)


# --- what cannot be


def test_what_no_machine_here_has_is_refused_within_a_minute(
    tmp_path: Path, tiny_run: Callable[..., Path], start: Callable[..., Driver]
) -> None:
    driver = start(tiny_run(tmp_path / "home", cluster={"cpus_per_model": 64}))
    began = time.monotonic()
    last = driver.stopped()
    assert time.monotonic() - began < 60
    assert last.startswith("host-tiny-llama asks for 64 CPU, 0 GPU")
    assert " lacks " in last


def blobs(store: Path) -> dict[str, bytes]:
    """Every blob of a directory, whole."""
    found = {file.name: file.read_bytes() for file in (store / "blobs").rglob("*/*")}
    for address in found:
        DirectoryStore(store).get(address)
    return found
