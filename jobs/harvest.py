"""Streams the anchors through the models of a wave, each once, into moments and similarities."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from actors.anchors import AnchorBatch
from actors.folder import Folder
from cluster.gang import Gang, Ref, fetch
from cluster.storage import StorageError, Store
from cluster.stream import stream
from jobs.attempts import persist
from jobs.config import RunFile
from jobs.due import Due, due, set_down
from jobs.placing import Wave
from jobs.progress import Reporter, Stage
from jobs.resident import FOLDER_BYTES, FOLDERS
from jobs.waves import Crew
from jobs.work import Shard, Work


@contextmanager
def folders(run: RunFile, store: Store) -> Iterator[tuple[Gang, Gang]]:
    """One to sum moments and one to compare layers; both fit maps afterwards.

    They claim memory and no core: models keep those busy.
    """
    started: list[Gang] = []
    try:
        for duty in FOLDERS:
            folder = Gang.launch(
                Folder,
                store,
                name=f"folder-{duty}",
                num_cpus=0,
                memory_bytes=FOLDER_BYTES,
                restarts=run.cluster.restarts,
            )
            started.append(folder)
        yield started[0], started[1]
    finally:
        for folder in started:
            folder.stop()


def require_shared(store: Store, workers: Iterable[Gang]) -> None:
    """Make sure that the folders see what is written here: they may be on other machines.

    Raises:
        StorageError: one does not, or nothing can be written at all.
    """
    with store.proven() as marker:
        for worker in workers:
            if machine := worker.call("blind_on", marker):
                raise StorageError(
                    f"the store {store} is not seen by {worker.name} on {machine}: use a directory "
                    "that all machines share, or s3://bucket/prefix"
                )


@dataclass(frozen=True, eq=False)
class Harvest:
    """Who reads anchors, who folds what comes of it, and where that is kept."""

    run: RunFile
    crew: Crew
    store: Store
    folder: Gang
    comparer: Gang
    reporter: Reporter

    def read(self, work: Work, wave: Wave) -> None:
        """Read until every moment and similarity that this wave completes has its address.

        `work` is of every model that is known. A worker that dies takes its open shards with it:
        they are read again, up to `cluster.restarts` times. Raises ActorLost when that is not
        enough, and what a host raises at a batch: its shard is not written then.
        """
        everything = _batches(work.shards)
        left = self._due(work, wave)
        self.crew.live(left.asked)
        done = everything - _batches(left.shards)
        with self.reporter.stage("reading anchors", everything, done) as stage:

            def attempt(left: Due) -> None:
                stage.advance(everything - _batches(left.shards) - stage.done)
                self._read(left, stage)

            if left.asked:
                workers = (self.folder, self.comparer, self.crew)
                undone = partial(self._due, work, wave)
                persist(left, attempt, undone, self.run.cluster.restarts, workers, self._lost)

    def forget(self, work: Work) -> None:
        """Take away what was set down, once every wave has been read."""
        *before, _ = self.crew.waves
        models = {name: self.crew.facts[name] for wave in before for name in wave}
        if models:
            for to in self.store.present(set_down(self.run, work, models)):
                self.store.drop(to)

    def _due(self, work: Work, wave: Wave) -> Due:
        return due(self.run, work, self.crew.facts, self.crew.waves, wave, self.store)

    def _lost(self) -> None:
        self.reporter.note("a worker was lost; its open shards are read again")

    def _read(self, left: Due, stage: Stage) -> None:
        models = self.crew.live(left.asked)
        compared = [batch for shard in left.work.compared for batch in shard.batches]
        comparing: list[Ref] = []

        def submit(step: tuple[Shard, AnchorBatch]) -> Ref:
            shard, batch = step
            refs = {
                name: models[name].host.submit("activations", batch, sites)
                for name, sites in left.sites(shard).items()
            }
            names, exchange = left.compare(shard, batch)
            if names:
                number = compared.index(batch)
                of = [refs[name] for name in names]
                comparing.append(self.comparer.submit("keep", number, exchange, *of))
                if batch == compared[-1]:
                    comparing.append(self.comparer.submit("compare", left.comparisons))
            names, keep = left.keep(shard, batch)
            if not names:
                return comparing[-1]
            return self.folder.submit("fold", keep, *(refs[name] for name in names))

        steps = ((shard, batch) for shard in left.shards for batch in shard.batches)
        with closing(stream(steps, submit, self.run.cluster.in_flight)) as folded:
            for _ in folded:
                stage.advance()
        fetch(comparing)


def _batches(shards: Iterable[Shard]) -> int:
    return sum(len(shard.batches) for shard in shards)
