import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from cluster.gang import ActorLost, Gang, fetch
from cluster.placement import InsufficientResources
from cluster.world import World

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
]
# The tests are not shipped: their classes travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class WrongWord(ValueError):
    pass


class Worker:
    """Remembers how often its methods ran, in files, because its memory is lost with it."""

    def __init__(self, directory: Path, broken: bool = False) -> None:
        if broken:
            raise WrongWord("this worker cannot be built")
        self.directory = directory

    def square(self, x: float) -> float:
        return x * x

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x + y

    def slow(self, seconds: float) -> str:
        (self.directory / f"begun.{time.monotonic_ns()}").touch()
        time.sleep(seconds)
        return "done"

    def complain(self) -> None:
        raise WrongWord("no such word: 'isthmos'")

    def threads(self) -> str:
        return os.environ["OMP_NUM_THREADS"]

    def shipped(self) -> tuple[str, bool]:
        import cluster

        return cluster.__file__, "torch" in sys.modules


def kill_when_begun(gang: Gang, directory: Path) -> threading.Thread:
    pid = gang.pids()[0]

    def wait_and_kill() -> None:
        while not list(directory.glob("begun.*")):
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_calls_refs_and_threads(tmp_path):
    one = Gang.launch(Worker, tmp_path, name="one", threads=3)
    two = Gang.launch(Worker, tmp_path, name="two")
    one.ready(60)
    assert one.call("square", 3.0) == 9.0
    assert [one.call("threads"), two.call("threads")] == ["3", "1"]
    assert fetch([two.submit("square", x) for x in (1.0, 2.0)]) == [1.0, 4.0]
    # A ref goes from one process to the other; the driver never sees the array.
    rows = one.submit("add", np.ones((3, 50_000)), np.ones((3, 50_000)))
    total = two.call("add", rows, rows)
    np.testing.assert_array_equal(total, np.full((3, 50_000), 4.0))
    file, torch_loaded = one.call("shipped")
    assert Path(file) != Path(__file__).parents[2] / "cluster/__init__.py"
    assert not torch_loaded
    one.stop()
    two.stop()


def test_a_killed_process_is_restarted_and_its_call_made_again(tmp_path):
    gang = Gang.launch(Worker, tmp_path, name="stubborn", restarts=1, retries=1)
    before = gang.pids()[0]
    killer = kill_when_begun(gang, tmp_path)
    assert gang.call("slow", 1.0) == "done"
    killer.join()
    assert len(list(tmp_path.glob("begun.*"))) == 2
    assert gang.pids()[0] != before
    assert gang.call("square", 3.0) == 9.0
    gang.stop()


def test_a_process_lost_for_good_is_named(tmp_path):
    gang = Gang.launch(Worker, tmp_path, name="mortal")
    other = Gang.launch(Worker, tmp_path, name="other")
    killer = kill_when_begun(gang, tmp_path)
    lost = gang.submit("slow", 30.0)
    with pytest.raises(ActorLost, match="mortal") as caught:
        fetch(lost)
    killer.join()
    assert "\n" not in str(caught.value)
    with pytest.raises(ActorLost, match="mortal"):
        gang.call("square", 1.0)
    # What needed the lost answer says the same.
    with pytest.raises(ActorLost, match="mortal"):
        other.call("square", lost)
    gang.stop()
    other.stop()


def test_an_error_of_the_body_arrives_as_itself(tmp_path):
    gang = Gang.launch(Worker, tmp_path, name="critic")
    with pytest.raises(WrongWord, match=r"^no such word: 'isthmos'$") as caught:
        gang.call("complain")
    assert type(caught.value) is WrongWord
    assert "in complain" in str(caught.value.__cause__)
    with pytest.raises(WrongWord, match=r"^no such word: 'isthmos'$"):
        gang.call("square", gang.submit("complain"))
    assert gang.call("square", 2.0) == 4.0
    gang.stop()


def test_an_error_of_the_constructor_arrives_as_itself(tmp_path):
    gang = Gang.launch(Worker, tmp_path, name="broken", broken=True)
    with pytest.raises(WrongWord, match=r"^this worker cannot be built$"):
        gang.ready()
    with pytest.raises(WrongWord, match=r"^this worker cannot be built$"):
        gang.call("square", 2.0)
    gang.stop()


def test_a_late_answer_is_a_timeout(tmp_path):
    gang = Gang.launch(Worker, tmp_path, name="late")
    gang.ready()
    with pytest.raises(TimeoutError, match=r"^no answer within 0\.1 s$"):
        fetch(gang.submit("slow", 30.0), timeout=0.1)
    gang.stop()


def test_what_is_missing_is_named_in_time(tmp_path):
    start = time.monotonic()
    with pytest.raises(InsufficientResources) as caught:
        Gang.launch(Worker, tmp_path, name="giant", num_cpus=64, timeout=2)
    assert time.monotonic() - start < 10
    assert "its largest node lacks 61 CPU; a node of type " in str(caught.value)
    assert str(caught.value).startswith(
        "giant asks for 64 CPU, 0 GPU on one node; the cluster is 1 node(s) with 3 CPU, 0 GPU"
    )


def test_a_stopped_process_gives_its_place_back(tmp_path):
    for name in ("first", "second"):
        gang = Gang.launch(Worker, tmp_path, name=name, num_cpus=3)
        assert gang.call("square", 2.0) == 4.0
        gang.stop()


class Adder:
    """One of several ranks that add up a number over gloo."""

    def __init__(self, world: World, broken: bool = False) -> None:
        import torch.distributed as dist

        if broken:
            raise WrongWord("this worker cannot be built")
        self.world = world
        patience = timedelta(seconds=world.patience)
        dist.init_process_group(
            "gloo", store=world.store, rank=world.rank, world_size=world.ranks, timeout=patience
        )

    def add(self, number: float) -> tuple[int, float]:
        import torch
        import torch.distributed as dist

        total = torch.tensor([number + self.world.rank])
        dist.all_reduce(total)
        return self.world.rank, total.item()

    def stall(self, rank: int, mark: Path) -> None:
        """One rank stays out while the others wait for it."""
        if self.world.rank == rank:
            mark.touch()
            time.sleep(600)
        self.add(0.0)

    def complain(self) -> None:
        raise WrongWord("no such word: 'isthmos'")


def adders(ranks: int, **more: Any) -> Gang:
    return Gang.launch(Adder, name="adders", ranks=ranks, num_cpus=0.5, **more)


def wait_for(mark: Path) -> None:
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_several_ranks_are_one_object():
    gang = adders(3)
    gang.ready(60)
    assert gang.call("add", 2.0) == (0, 9.0)
    assert len(set(gang.pids())) == 3
    with pytest.raises(WrongWord, match=r"^no such word: 'isthmos'$"):
        gang.call("complain")
    assert gang.call("add", 1.0) == (0, 6.0)
    gang.stop()
    broken = adders(2, broken=True)
    with pytest.raises(WrongWord, match=r"^this worker cannot be built$"):
        broken.ready(60)
    broken.stop()


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_lost_or_hangs_ends_the_gang_which_is_built_anew(tmp_path, victim, how):
    gang = adders(2, restarts=1, patience=60 if how == signal.SIGKILL else 10)
    before = gang.pids()
    mark = tmp_path / "begun"
    lost = gang.submit("stall", victim, mark)
    wait_for(mark)
    after_it = gang.submit("add", 1.0)
    os.kill(before[victim], how)
    start = time.monotonic()
    for ref in (lost, after_it):
        with pytest.raises(ActorLost):
            fetch(ref, timeout=60)
    assert time.monotonic() - start < (20 if how == signal.SIGKILL else 40)
    gang.ready(60)
    assert gang.call("add", 2.0) == (0, 5.0)
    assert not set(gang.pids()) & set(before)
    # No restart is left.
    os.kill(gang.pids()[1], signal.SIGKILL)
    with pytest.raises(ActorLost, match=r"^adders was lost: ") as caught:
        gang.ready(60)
    assert "\n" not in str(caught.value)
    gang.stop()
    for pid in before:
        assert (
            not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()
        )
