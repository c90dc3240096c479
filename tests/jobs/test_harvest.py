"""Anchors go through every model once, however many pairs there are."""

import shutil
import socket
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from io import StringIO
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle
from rich.console import Console
from safetensors.numpy import load_file, save_file

from actors.anchors import AnchorBatch
from actors.catalog import ModelSpec
from actors.checkpoints import facts
from actors.exchange import Activations
from actors.host import ModelHost
from actors.reading import NotFinite
from cluster.gang import Gang
from cluster.storage import DirectoryStore, StorageError
from jobs.config import RunFile, read_run_file
from jobs.harvest import Harvest, folders, require_shared
from jobs.placing import Wave
from jobs.progress import Reporter
from jobs.texts import gather
from jobs.waves import Crew
from jobs.work import Work, make_work

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
# The tests are not shipped: the class of theirs travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
MODELS = ("tiny-llama", "tiny-gemma", "tiny-qwen")


class CountedHost(ModelHost):
    """A host that leaves a file for each batch that it reads, however often its process dies."""

    def __init__(self, spec: ModelSpec, cache: Path, marks: Path) -> None:
        super().__init__(spec, cache)
        self._marks = marks

    def activations(self, batch: AnchorBatch, sites: tuple[str, ...]) -> Activations:
        name = f"{self.facts().name} {batch.shard} {batch.index} {uuid.uuid4().hex}"
        (self._marks / name).touch()
        return super().activations(batch, sites)


class Bench:
    """Models in waves, two folders, and an empty store; hosts count what they read."""

    def __init__(self, run: RunFile, root: Path, waves: Sequence[Wave]) -> None:
        root.mkdir()
        self.open_things = ExitStack()
        self.run, self.marks, self.store = run, root / "marks", DirectoryStore(root / "store")
        self.marks.mkdir()
        self.said = StringIO()
        self.loaded: list[str] = []
        used = [name for wave in waves for name in wave]
        self.specs = {spec.name: spec for spec in run.models if spec.name in used}
        # That of the first wave is not known before it is loaded, as on another machine.
        known = {
            name: facts(spec.directory, name)
            for name, spec in self.specs.items()
            if spec.directory is not None and name not in waves[0]
        }
        reporter = Reporter(Console(file=self.said, width=200))
        self.crew = Crew(list(self.specs), waves, self._launch, known, reporter)
        self.open_things.callback(self.crew.release)
        workers = self.open_things.enter_context(folders(run, self.store))
        self.harvest = Harvest(run, self.crew, self.store, *workers, reporter)
        self.anchors = gather(run).anchors

    def _launch(self, name: str) -> Gang:
        self.loaded.append(name)
        spec = self.specs[name]
        return Gang.launch(
            CountedHost, spec, self.marks, self.marks, name=f"host-{name}", num_cpus=0.5
        )

    def work(self) -> Work:
        return make_work(self.run, self.anchors, self.crew.facts)

    def read(self) -> str:
        """Every wave in turn; what was said meanwhile."""
        start = len(self.said.getvalue())
        for wave in self.crew.waves:
            self.crew.meet(wave)
            self.harvest.read(self.work(), wave)
        return self.said.getvalue()[start:]

    def reads(self) -> Counter[tuple[str, ...]]:
        """How often each (model, shard, batch) was read."""
        return Counter(tuple(mark.name.split()[:3]) for mark in self.marks.iterdir())

    def blobs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.store.root.glob("blobs/*/*")}


@pytest.fixture
def run(tmp_path: Path, tiny_run: Callable[..., Path]) -> RunFile:
    return read_run_file(tiny_run(tmp_path / "home", models=3))


@pytest.fixture
def bench(run: RunFile, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as open_things:
        numbers = count()

        def begin(*waves: Wave) -> Bench:
            started = Bench(run, tmp_path / str(next(numbers)), waves)
            open_things.enter_context(started.open_things)
            return started

        yield begin


def every(work: Work) -> Counter[tuple[str, ...]]:
    """Each batch through each model, once."""
    batches = [batch for shard in work.shards for batch in shard.batches]
    return Counter((name, str(b.shard), str(b.index)) for name in MODELS for b in batches)


def test_each_batch_goes_through_each_model_once(bench: Callable[..., Bench]) -> None:
    whole = bench(MODELS)
    whole.read()
    work = whole.work()
    assert len(every(work)) == 3 * 120
    assert whole.reads() == every(work)
    # Of three models there are three pairs, at two roles, and all of them are there.
    assert len(work.moments) == 3 * 2 * len(work.shards)
    assert len(work.comparisons) == 3
    left = [*work.moments.values(), *(each.to for each in work.comparisons)]
    # All of one wave: nothing else is written.
    assert whole.blobs().keys() == set(left)

    # Again: nothing is asked.
    assert "reading anchors, 120 of 120 there already" in whole.read()
    assert whole.reads() == every(work)

    # What is lost is read again, and nothing but that: the shard, by the pair that lacks it.
    (pair, number), to = list(work.moments.items())[-1]
    before = whole.store.get(to)
    whole.store.path(to).unlink()
    whole.read()
    again = [key for key, times in whole.reads().items() if times == 2]
    names = {facts.fingerprint: name for name, facts in whole.crew.facts.items()}
    assert {name for name, _, _ in again} == {names[pair.source], names[pair.target]}
    assert {shard for _, shard, _ in again} == {str(number)}
    assert len(again) == 2 * len(work.shards[number].batches)
    assert whole.store.get(to) == before
    assert whole.loaded == list(MODELS)


def test_a_batch_that_is_not_finite_ends_the_harvest_and_its_shard_is_not_written(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    broken = bench(MODELS[:2])
    spec = broken.specs["tiny-llama"]
    assert spec.directory is not None
    checkpoint = shutil.copytree(spec.directory, tmp_path / "broken")
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    save_file(tensors | {name: tensors[name] * np.float32("inf")}, checkpoint / "model.safetensors")
    broken.specs["tiny-llama"] = spec.model_copy(update={"directory": checkpoint})
    broken.crew.meet(MODELS[:2])
    with pytest.raises(NotFinite, match=r"^model tiny-llama, batch 0/0"):
        broken.harvest.read(broken.work(), MODELS[:2])
    assert broken.blobs() == {}


def test_a_folder_that_does_not_see_the_store_is_named(bench: Callable[..., Bench]) -> None:
    here = bench(MODELS[:2])
    require_shared(here.store, [here.harvest.folder, here.harvest.comparer])
    assert here.blobs() == {}
    elsewhere = DirectoryStore(here.store.root / "elsewhere")
    with pytest.raises(StorageError) as caught:
        require_shared(elsewhere, [here.harvest.folder])
    assert str(caught.value) == (
        f"the store {elsewhere} is not seen by folder-moments on {socket.gethostname()}: use a "
        "directory that all machines share, or s3://bucket/prefix"
    )


@pytest.mark.long
def test_in_waves_each_batch_goes_through_each_model_once_to_the_same_bits(
    bench: Callable[..., Bench],
) -> None:
    whole = bench(MODELS)
    whole.read()
    whole.open_things.close()
    waves = bench(*((name,) for name in MODELS))
    said = waves.read()
    work = waves.work()
    assert [line for line in said.splitlines() if line.startswith("loading") and "..." in line] == [
        f"loading {name} ..." for name in MODELS
    ]
    assert waves.loaded == list(MODELS)
    assert waves.reads() == every(work)
    kept = waves.blobs().keys() - whole.blobs().keys()
    # The last wave leaves nothing; of the others each batch, and each that is compared.
    compared = sum(len(shard.batches) for shard in work.compared)
    assert 0 < compared < 120
    assert len(kept) == 2 * (120 + compared)

    # A wave that lost what it had set down for a pair sets it down again, and that alone.
    (pair, number), to = list(work.moments.items())[-1]
    for address in (to, *kept):
        waves.store.path(address).unlink()
    waves.read()
    names = {facts.fingerprint: name for name, facts in waves.crew.facts.items()}
    again = [key for key, times in waves.reads().items() if times == 2]
    assert {name for name, _, _ in again} == {names[pair.source], names[pair.target]}
    assert {shard for _, shard, _ in again} == {str(number)}
    assert len(waves.loaded) == 3 + 2

    waves.harvest.forget(work)
    assert waves.blobs() == whole.blobs()
    assert "reading anchors, 120 of 120 there already" in waves.read()
    assert len(waves.loaded) == 3 + 2
