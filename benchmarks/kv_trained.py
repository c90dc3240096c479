"""How much more of a context survives when the map of caches is trained through its target.

Starts at the closed-form map of so many directions as 2 % of the target's bytes hold in four bits,
and trains it on the same texts, as it is in four bits, so that the target says after carried cells
what it says after the text itself.

    python -m benchmarks.kv_trained
"""

import sys
from dataclasses import asdict
from itertools import permutations
from typing import Any

from actors.cache_training import CacheTraining, Lesson, lesson, reduced, train_cache_map
from actors.hand_over import Passage
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap
from benchmarks import caches
from benchmarks.caches import Model
from benchmarks.record import record
from jobs.passages import Passages

TRAINING = CacheTraining()


def main() -> None:
    """Measure and record."""
    run, section, texts = caches.run_of_caches()
    crossings = {}
    for source, target in permutations(caches.live(run.models), 2):
        crossings[f"{source.name} -> {target.name}"] = _crossing(
            source, target, texts, section.cached
        )
    record(
        "kv_trained",
        {
            "asked": {
                "trained through the target": ">= 0.90",
                "<= 2 % of the target's bytes": "loses <= 0.02",
            },
            "training": asdict(TRAINING),
            "crossings": crossings,
        },
    )


def _crossing(source: Model, target: Model, texts: Passages, cached: int) -> dict[str, Any]:
    reductions, sums = caches.prepared(source, target, texts)
    whole = fit_caches(sums.training, sums.held, reductions, target.widths)
    cut = caches.small(whole, caches.importance_to(target, texts, cached), target)
    small = cut.to_bytes(4)
    fitted = CacheMap.from_bytes(small)
    lessons: dict[bool, list[Lesson]] = {False: [], True: []}
    for text, held in caches.learnt(texts).items():
        passage = Passage.cut(text, cached)
        (mine,) = source.read([passage.cached])
        lessons[held].append(lesson(target.engine, passage, reduced(mine, fitted), fitted))
    trained = train_cache_map(target.engine, small, lessons[False], lessons[True], TRAINING)
    print(source.name, trained.held_out, f"{trained.seconds:.0f} s", file=sys.stderr)
    made = CacheMap.from_bytes(trained.map)
    maps = {"closed form": whole.map, "cut to rank": cut, "small": fitted, "small, trained": made}
    judged = caches.judged(texts)
    nats = [caches.nats_after(source, target, each, maps) for each in judged]
    return {
        "texts": len(judged),
        "rank": made.map.tensors()["right"].shape[0],
        "bytes_over_bfloat16_target": len(trained.map) / (2 * target.parameters),
        "held_out_kl": trained.held_out,
        "training_seconds": round(trained.seconds),
        "retention": {
            name: caches.retention(nats, name) for name in nats[0] if name not in ("base", "native")
        },
    }


if __name__ == "__main__":
    main()
