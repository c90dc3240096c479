"""What reading, comparing and fitting cost beside bare forward passes, and how memory grows.

In one session, with the models of a run loaded once (by default the demo's): the anchors go
through all of them bare (no hooks, no head, nothing returned), then a whole harvest with all-layer
similarity and every fit is made into an empty store, and both again, three times in all, since a
machine is not as fast at all times; then one harvest with twice the anchors. Recorded are the
median, the least and the greatest overhead of a round. Asked for: harvest, similarity and fits at
most 1.2 times the bare passes; peak memory independent of the number of anchors.

    python -m benchmarks.harvest_overhead [RUN.yaml]
"""

import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from rich.console import Console

from actors.anchors import AnchorBatch
from actors.pool import Live
from benchmarks.record import record
from cluster.gang import Gang, fetch
from cluster.session import session
from cluster.storage import DirectoryStore
from jobs.config import RunFile, read_run_file
from jobs.fitting import Fitting
from jobs.harvest import Harvest, folders
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.texts import gather
from jobs.waves import Crew, crew
from jobs.work import Work, make_work

RUN_FILE = Path("configs/demo.yaml")
GROWTH = 2
ROUNDS = 3


def main() -> None:
    """Measure and record."""
    file = Path(sys.argv[1]) if sys.argv[1:] else RUN_FILE
    run = read_run_file(ROOT / file)
    reporter = Reporter(Console(stderr=True))
    with ExitStack() as opened:
        cluster = opened.enter_context(session(run.cluster.address))
        texts = gather(run)
        loaded = opened.enter_context(crew(run, texts, cluster, reporter))
        (wave,) = loaded.waves
        models = loaded.live(wave)
        works = {factor: _work(run, models, factor) for factor in (1, GROWTH)}
        batches = [batch for shard in works[1].shards for batch in shard.batches]
        _bare(batches[:2], models)
        rounds = [
            (_bare(batches, models), *_full(run, works[1], loaded, reporter)) for _ in range(ROUNDS)
        ]
        _, peak_grown = _full(run, works[GROWTH], loaded, reporter)
    bare, full, (*_, peak) = zip(*rounds, strict=True)
    each = [whole / alone for whole, alone in zip(full, bare, strict=True)]
    record(
        "harvest_overhead" if file == RUN_FILE else f"harvest_overhead_{file.stem}",
        {
            "run": str(file),
            "asked": {"overhead": "<= 1.2", "peak memory": "independent of the number of anchors"},
            "anchor_texts": run.anchors.texts,
            "bare_forward_seconds": bare,
            "harvest_similarity_fits_seconds": full,
            "overhead": {"median": median(each), "low": min(each), "high": max(each)},
            "peak_mib": peak,
            f"peak_mib_with_{GROWTH}x_anchors": peak_grown,
        },
    )


def _work(run: RunFile, models: dict[str, Live], factor: int) -> Work:
    more = run.anchors.model_copy(update={"texts": run.anchors.texts * factor})
    grown = run.model_copy(update={"anchors": more})
    texts = gather(grown)
    return make_work(grown, texts.anchors, {name: live.facts for name, live in models.items()})


def _bare(batches: Iterable[AnchorBatch], models: dict[str, Live]) -> float:
    """Seconds until every batch has been through every model, all models at work at once."""
    start = time.perf_counter()
    fetch([live.host.submit("forward", batch) for batch in batches for live in models.values()])
    return time.perf_counter() - start


def _full(
    run: RunFile, work: Work, loaded: Crew, reporter: Reporter
) -> tuple[float, dict[str, float]]:
    """Seconds of harvest, similarity and fits into an empty store, and each worker's peak MiB."""
    with tempfile.TemporaryDirectory() as home:
        store = DirectoryStore(Path(home))
        with folders(run, store) as (moments, layers):
            moments.ready()
            layers.ready()
            start = time.perf_counter()
            harvest = Harvest(run, loaded, store, moments, layers, reporter)
            harvest.read(work, loaded.waves[0])
            fitting = Fitting(store, (moments, layers), run.cluster.restarts, reporter)
            fitting.complete("fitting maps", [hop.order for hop in work.hops])
            seconds = time.perf_counter() - start
            return seconds, {"folder-moments": _peak(moments), "folder-layers": _peak(layers)}


def _peak(gang: Gang) -> float:
    """Greatest resident memory of a process so far, in MiB."""
    lines = Path(f"/proc/{gang.pids()[0]}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
