"""`isthmus sweep`: a run file in, a tracked matrix and a page out."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alignment.whole_file import whole_file
from cluster.gang import Gang
from cluster.storage import open_store
from evaluation.cells import Key
from evaluation.matrix import GroupAgreement, Matrix
from evaluation.report import write_page
from evaluation.tracking import TrackedRun, track
from jobs.assemble import assemble
from jobs.cargo import Came, Going
from jobs.cargos import carried_in
from jobs.config import RunFile
from jobs.extract import Vectors, agreements, extract
from jobs.fitting import Fitting
from jobs.harvest import Harvest
from jobs.names import MATRIX_FILE
from jobs.opened import opened
from jobs.paths import Saving
from jobs.progress import Reporter
from jobs.texts import Texts, gather
from jobs.units import Asking
from jobs.work import Work, make_work

PAGE_FILE = "index.html"
SECONDS_FILE = "seconds.json"  # of all calls, by stage


@dataclass(frozen=True)
class Swept:
    """What a sweep leaves: the matrix, its page, and where it is tracked."""

    matrix: Matrix
    page: Path
    tracked: TrackedRun


def sweep(run: RunFile, reporter: Reporter) -> Swept:
    """Run every unit of work that has not been done, then draw and track the matrix.

    Ended at any moment and started again, it goes on where it was, to the same numbers.
    """
    torch.set_num_threads(1)
    reporter.go_on(run.folder / SECONDS_FILE)
    cargos = carried_in(run)
    texts = gather(run)
    with reporter.stage("calling judges"):
        for each in cargos:
            each.ready(run)
    store = open_store(run.store_location)
    with opened(run, texts, store, reporter) as (models, workers):
        for each in cargos:  # said at the start, not after hours
            each.require(run, models)
        asking = Asking(models, store, run.cluster.in_flight, run.cluster.restarts, reporter)
        fitting = Fitting(store, workers, run.cluster.restarts, reporter)
        work, vectors, agreed = _read(run, texts, asking, workers)
        going = Going(run, texts, work, vectors, asking, fitting)
        came = [each.carry(going) for each in cargos if each.fits_sites]
        for worker in workers:  # nothing more is folded, and caches take much memory
            worker.stop()
        came += [each.carry(going) for each in cargos if not each.fits_sites]
    matrix = assemble(run, work, texts, models.facts, came, agreed, store, reporter.seconds)
    return _publish(run, matrix, came, reporter)


def _read(
    run: RunFile, texts: Texts, asking: Asking, workers: tuple[Gang, Gang]
) -> tuple[Work, Vectors, list[GroupAgreement]]:
    """Everything that is read of the models, wave by wave: anchors, and the texts of vectors."""
    models = asking.crew
    harvest = Harvest(run, models, asking.store, *workers, asking.reporter)
    work = make_work(run, texts.anchors, models.facts)
    vectors: Vectors = {}
    agreed: list[GroupAgreement] = []
    for wave in models.waves:
        if not models.facts.keys() >= set(wave):
            models.meet(wave)
            work = make_work(run, texts.anchors, models.facts)
        harvest.read(work, wave)
        known = (run, texts, [models.facts[name] for name in wave], asking)
        vectors |= extract(*known)
        agreed += agreements(*known)
    harvest.forget(work)
    return work, vectors, agreed


def _publish(run: RunFile, matrix: Matrix, came: Sequence[Came], reporter: Reporter) -> Swept:
    folder = run.folder
    with reporter.stage("drawing the page"):
        write_page(matrix, folder / PAGE_FILE)
        write_matrix(matrix, folder / MATRIX_FILE)
    with reporter.stage("tracking"), tempfile.TemporaryDirectory() as scratch:
        better = {of.key for of in matrix.routes if of.recommended}
        routed = {
            of.key: of.save
            for each in came
            for of in each.routes
            if of.key in better and of.save is not None
        }
        tracked = track(
            matrix,
            uri=run.tracking_uri,
            experiment=run.tracking.experiment,
            maps=_saved({key: of for each in came for key, of in each.files.items()}, scratch),
            routed=_saved(routed, scratch, "routed"),
            page=folder / PAGE_FILE,
        )
    return Swept(matrix, folder / PAGE_FILE, tracked)


def _saved(files: Mapping[Key, Saving], scratch: str, part: str = "direct") -> dict[Key, Path]:
    """A directory of its own for each, filled."""
    return {key: of(Path(scratch) / part / "-".join(key)) for key, of in files.items()}


def write_matrix(matrix: Matrix, path: Path) -> None:
    """Write the matrix as JSON."""
    with whole_file(path) as file:
        file.write_text(matrix.to_json(), encoding="utf-8")
