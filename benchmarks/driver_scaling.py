"""What steering many models costs the driver, and how large its lists of work grow.

Hosts that only sleep stand for models on machines of their own, and two folders only count: the
rest is the harvest as it is, in one session of Ray on this machine. Efficiency is the time that a
host sleeps for all batches, over the time taken: of a short harvest as a whole, which begins with
looking for what is there and ends with comparing every pair, and of each further batch. Asked for:
0.9 at 4 to 64 hosts; a driver neither slow nor large with 100,000 batches, nor with 1,000 models in
the catalog.

    python -m benchmarks.driver_scaling
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from ray import cloudpickle
from rich.console import Console

from actors.anchors import AnchorBatch
from actors.blueprint import blueprint
from actors.catalog import Entry, ModelFacts
from actors.fleet import fleet
from benchmarks.record import record
from cluster.gang import Gang
from cluster.session import session
from cluster.storage import DirectoryStore, address
from evaluation.compatibility import prior
from jobs.config import RunFile, read_run_file
from jobs.due import due
from jobs.harvest import Harvest
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.waves import Crew
from jobs.work import make_work, shuffled

HOSTS = (4, 16, 64)
AT_ONCE = 4  # processes that are started together
MEMORY = 64 * 2**20
SECONDS = (0.2, 1.0)  # of a batch
WARM_BATCHES, BATCHES = 8, 40
ANSWER_FLOATS = 2**15  # enough for an answer to travel as real ones do, through the object store
MANY_BATCHES = 100_000
MANY_MODELS = 1000


class Sleeper:
    """A host without a model."""

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts
        self._seconds = 0.0

    def facts(self) -> ModelFacts:
        return self._facts

    def sleep(self, seconds: float) -> None:
        """From now on, for each batch."""
        self._seconds = seconds

    def activations(self, _batch: AnchorBatch, _sites: tuple[str, ...]) -> np.ndarray:
        time.sleep(self._seconds)
        return np.zeros(ANSWER_FLOATS, dtype=np.float32)


class Counter:
    """A folder that sums nothing and writes nothing."""

    def fold(self, _keep: Any, *answers: np.ndarray) -> int:
        return len(answers)

    def keep(self, _index: int, _exchange: Any, *answers: np.ndarray) -> int:
        return len(answers)

    def compare(self, comparisons: Any) -> None:
        """Nothing was kept."""


def main() -> None:
    """Measure and record."""
    run = read_run_file(ROOT / "configs/demo.yaml")
    steering = _steering(run)
    lists = {
        "of_3_models": _alone(_lists, run, 3, MANY_BATCHES),
        "of_64_models": _alone(_lists, run, max(HOSTS), 400),
        "catalog": _alone(_catalog),
    }
    record(
        "driver_scaling",
        {
            "asked": {"efficiency from 4 to 64 hosts": ">= 0.9"},
            "batches": 2 * BATCHES,
            "batches_in_flight": run.cluster.in_flight,
            "steering": steering,
            "lists": lists,
        },
    )


# --- steering


def _steering(run: RunFile) -> list[dict[str, Any]]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    found: list[dict[str, Any]] = []
    models, hosts = _models(max(HOSTS)), {}
    with session("local", num_cpus=2):
        folders = [_launch(Counter, f"folder-{duty}") for duty in ("moments", "layers")]
        for count in HOSTS:
            names = list(models)[:count]
            while len(hosts) < count:
                new = names[len(hosts) : len(hosts) + AT_ONCE]
                hosts |= {name: _launch(Sleeper, name, models[name]) for name in new}
                for name in new:
                    hosts[name].ready()
            for seconds in SECONDS:
                for host in hosts.values():
                    host.call("sleep", seconds)
                _read(run, hosts, folders, WARM_BATCHES)
                short, _ = _read(run, hosts, folders, BATCHES)
                long, cpu = _read(run, hosts, folders, 2 * BATCHES)
                each = (long - short) / BATCHES
                found.append(
                    {
                        "hosts": count,
                        "seconds_asleep_a_batch": seconds,
                        "batches_a_second": 1 / each,
                        "calls_a_second": count / each,
                        "efficiency": 2 * BATCHES * seconds / long,
                        "efficiency_of_each_further_batch": seconds / each,
                        "driver_cpu_seconds_a_batch": cpu / (2 * BATCHES),
                        "load_average": os.getloadavg()[0],
                    }
                )
                print(found[-1], file=sys.stderr)
    return found


def _launch(body: type, name: str, *args: Any) -> Gang:
    return Gang.launch(body, *args, name=name, num_cpus=0, memory_bytes=MEMORY)


def _read(
    run: RunFile, hosts: dict[str, Gang], folders: list[Gang], batches: int
) -> tuple[float, float]:
    """Seconds of one harvest, and of the driver's core."""
    reporter = Reporter(Console(stderr=True))
    wave = tuple(hosts)
    crew = Crew(wave, [wave], hosts.__getitem__, {}, reporter)
    crew.meet(wave)
    work = make_work(run, _texts(run, batches), crew.facts)
    with tempfile.TemporaryDirectory() as home:
        store = DirectoryStore(Path(home))
        harvest = Harvest(run, crew, store, folders[0], folders[1], reporter)
        return _timed(lambda: harvest.read(work, wave))[1:]


# --- lists of work


def _lists(run: RunFile, count: int, batches: int) -> dict[str, Any]:
    """What a run does with its units beside asking for them."""
    models, texts = _models(count), _texts(run, batches)
    before = _peak_mib()
    work, making, _ = _timed(lambda: make_work(run, texts, models))
    with tempfile.TemporaryDirectory() as home:
        store = DirectoryStore(Path(home))
        args = (run, work, models, [tuple(models)], tuple(models), store)
        left, checking, _ = _timed(lambda: due(*args))
        shards, listing, _ = _timed(lambda: left.shards)
        _, ordering, _ = _timed(
            lambda: [left.keep(shard, batch) for shard in shards for batch in shard.batches]
        )
    hop = work.hops[0]
    _, controls, _ = _timed(
        lambda: [shuffled(hop, "ridge", draw) for draw in range(run.steers.shuffles)]
    )
    assert sum(len(shard.batches) for shard in shards) == batches
    return {
        "models": count,
        "batches": batches,
        "shards": len(work.shards),
        "addresses": len(work.moments),
        "texts_mib": before,
        "peak_mib": _peak_mib(),
        "seconds": {
            "making the list": making,
            "looking which addresses are there": checking,
            "which shards are to be read": listing,
            "what is to become of each batch": ordering,
            "the control maps of one hop": controls,
        },
    }


def _catalog() -> dict[str, Any]:
    """The catalog's open models under new names, until there are many; every one to every other."""
    known = [entry for entry in fleet().values() if entry.weights == "open"]
    entries = [_renamed(known[number % len(known)], number) for number in range(MANY_MODELS)]
    _, reading, _ = _timed(lambda: [blueprint(entry.config or {}) for entry in entries])
    before = _peak_mib()
    one, from_one, _ = _timed(lambda: [prior(entries[0], each, None).score for each in entries])
    scores, every, _ = _timed(
        lambda: np.array([[prior(a, b, None).score for a in entries] for b in entries], np.float32)
    )
    assert len(one) == len(scores) == MANY_MODELS
    return {
        "models": MANY_MODELS,
        "pairs": scores.size,
        "peak_mib_before": before,
        "peak_mib": _peak_mib(),
        "seconds": {
            "understanding every configuration": reading,
            "scoring one with every other": from_one,
            "scoring every pair": every,
        },
    }


def _renamed(entry: Entry, number: int) -> Entry:
    return entry.model_copy(update={"name": f"{entry.name[:50]}-{number}"})


# --- what all of it stands on


def _models(count: int) -> dict[str, ModelFacts]:
    """Facts as of a model of eight billion parameters."""
    sizes = {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_width": 128}
    return {
        name: ModelFacts(
            name=name,
            family="llama",
            vocabulary=128_256,
            parameters=8_030_261_248,
            dtype="bfloat16",
            fingerprint=address("no such model", name),
            **sizes,
        )
        for name in (f"model-{number}" for number in range(count))
    }


def _texts(run: RunFile, batches: int) -> list[str]:
    """Texts of some twenty words, enough for so many batches."""
    words = "where the river bends twice a mill was built of grey stone and red brick long ago by"
    return [f"text {number} says {words}" for number in range(batches * run.anchors.batch_texts)]


def _timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, the seconds it took, and those of this process's cores."""
    cpu, start = time.process_time(), time.perf_counter()
    found = run()
    return found, time.perf_counter() - start, time.process_time() - cpu


def _alone(run: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Call it in a process of its own, so that its peak of memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, *args).result()


def _peak_mib() -> float:
    """Greatest resident memory of this process so far; what it was started from does not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
