"""`isthmus sweep`: a run file in, a tracked matrix and a page out."""

import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from alignment.maps import map_from_bytes
from alignment.whole_file import whole_file
from cluster.gang import Gang
from cluster.storage import Store, open_store
from evaluation.judges import JUDGES
from evaluation.matrix import GroupAgreement, Matrix
from evaluation.report import write_page
from evaluation.skills import SKILLS
from evaluation.suites import SUITES
from evaluation.tracking import TrackedRun, track
from jobs.adapter_routes import route_adapters
from jobs.adapters import adapter_files, carry_adapters
from jobs.assemble import Results, assemble
from jobs.cache_maps import require_together
from jobs.config import RunFile
from jobs.extract import Vectors, agreements, extract
from jobs.fitting import Fitting
from jobs.handing_over import cache_files, hand_over
from jobs.harvest import Harvest
from jobs.lessons import train
from jobs.names import MATRIX_FILE
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.routes import measure_routes
from jobs.soft_prompts import carry_prompts, prompt_files, require_forms, require_readers
from jobs.steer import Judged, Steerer
from jobs.texts import Texts, gather
from jobs.units import Asking
from jobs.ways import vector_files
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
    require_forms(run)
    texts = gather(run)
    with reporter.stage("calling judges"):
        call_judges(run)
    store = open_store(run.store_location)
    with opened(run, texts, store, reporter) as (models, workers):
        if run.kv_cache is not None:  # said at the start, not after hours
            for pair in combinations([spec.name for spec in run.models], 2):
                require_together(models, pair)
        require_readers(run, models)
        asking = Asking(models, store, run.cluster.in_flight, run.cluster.restarts, reporter)
        fitting = Fitting(store, workers, run.cluster.restarts, reporter)
        work, vectors, agreed = _read(run, texts, asking, workers)
        judged = _steered(run, texts, work, vectors, asking, fitting)
        routed = measure_routes(run, texts, work, models.facts, vectors, judged, asking, fitting)
        for worker in workers:  # nothing more is folded, and caches take much memory
            worker.stop()
        handed = hand_over(run, texts, models, store, reporter)
        adapted = carry_adapters(run, texts, models.facts, asking)
        routed += route_adapters(run, texts, models.facts, adapted, asking)
        prompted = carry_prompts(run, texts, models.facts, asking)
    results = Results(judged, handed, adapted, prompted, agreed, routed)
    matrix = assemble(run, work, texts, models.facts, results, store, reporter.seconds)
    return _publish(run, matrix, results, store, reporter)


def _steered(
    run: RunFile, texts: Texts, work: Work, vectors: Vectors, asking: Asking, fitting: Fitting
) -> list[Judged]:
    """Steering vectors of every concept, carried and judged; nothing where a run has none."""
    if run.steering is None:
        return []
    fitting.complete("fitting maps", [hop.order for hop in work.hops])
    models = asking.crew
    known = (run, texts, work, models.facts, vectors, asking)
    trained = train(*known) if run.steering.trained else {}
    steerers = [
        Steerer(run, concept, texts, work, models.facts, vectors, asking, fitting, trained)
        for concept in run.steering.concepts
    ]
    # The wave that was read last is still there.
    judged = [
        each
        for wave in reversed(models.waves)
        for steerer in steerers
        for each in steerer.judge(wave)
    ]
    pairs = {(hop.source, hop.target): place for place, hop in enumerate(work.hops)}
    concepts = [concept.name for concept in run.steering.concepts]
    return sorted(judged, key=lambda each: (concepts.index(each.concept), pairs[each.key[:2]]))


def call_judges(run: RunFile) -> None:
    """Make every judge of a run ready: what one lacks is said at the start, not at the end.

    Raises:
        JudgeError: a judge lacks what it is made from.
        SandboxError: programs are to be run, and cannot be.
    """
    for concept in () if run.steering is None else run.steering.concepts:
        for judge in SUITES[concept.suite].judges:
            JUDGES[judge].facts()
    for skill in () if run.lora is None else run.lora.skills:
        SKILLS[skill].ready()
    if run.lora is not None and run.lora.safety:
        JUDGES["refusal"].facts()


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


def _publish(
    run: RunFile, matrix: Matrix, results: Results, store: Store, reporter: Reporter
) -> Swept:
    folder = run.folder
    with reporter.stage("drawing the page"):
        write_page(matrix, folder / PAGE_FILE)
        write_matrix(matrix, folder / MATRIX_FILE)
    with reporter.stage("tracking"), tempfile.TemporaryDirectory() as scratch:
        maps = {
            each.key: vector_files(
                Path(scratch) / str(number),
                map_from_bytes(store.get(each.choice.way.map_address)),
                each.vector,
            )
            for number, each in enumerate(results.judged)
        }
        maps |= {
            each.key: cache_files(Path(scratch) / "-".join(each.key[:2]), each, store)
            for each in results.handed
        }
        maps |= {
            each.key: adapter_files(Path(scratch) / "-".join(each.key), each.files)
            for each in results.adapted
        }
        maps |= {
            each.key: prompt_files(Path(scratch) / "-".join(each.key), each)
            for each in results.prompted
        }
        better = {of.key for of in matrix.routes if of.recommended}
        tracked = track(
            matrix,
            uri=run.tracking_uri,
            experiment=run.tracking.experiment,
            maps=maps,
            routed={
                each.key: each.save(Path(scratch) / "routed" / "-".join(each.key))
                for each in results.routed
                if each.save is not None and each.key in better
            },
            page=folder / PAGE_FILE,
        )
    return Swept(matrix, folder / PAGE_FILE, tracked)


def write_matrix(matrix: Matrix, path: Path) -> None:
    """Write the matrix as JSON."""
    with whole_file(path) as file:
        file.write_text(matrix.to_json(), encoding="utf-8")
