"""How much more of a context survives when the map of caches is trained through its target.

Starts at the closed-form map of so many directions as 2 % or 1 % of the target's bytes hold in four
bits, and trains it on the same texts, as it is in four bits, so that the target says after carried
cells what it says after the text itself.

    python -m benchmarks.kv_trained
"""

import sys
from dataclasses import asdict
from itertools import permutations
from typing import Any

from actors.cache_training import CacheTraining, Lesson, lesson, reduced, train_cache_map
from actors.hand_over import BASE, NATIVE, Passage
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap
from benchmarks import caches
from benchmarks.caches import Model
from benchmarks.record import record
from jobs.passages import Passages

TRAINING = CacheTraining()
SHARES = (0.02, 0.01)  # of the bytes of the target in bfloat16


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
                "a quarter read again": ">= 0.97",
                "<= 2 % of the target's bytes": "loses <= 0.02",
            },
            "training": asdict(TRAINING),
            "crossings": crossings,
        },
    )


def _crossing(source: Model, target: Model, texts: Passages, cached: int) -> dict[str, Any]:
    reductions, sums = caches.prepared(source, target, texts)
    whole = fit_caches(sums.training, sums.held, reductions, target.widths)
    del sums
    matters = caches.importance_to(target, texts, cached)
    begun = {share: caches.small(whole, matters, target, share).to_bytes(4) for share in SHARES}
    small = {share: CacheMap.from_bytes(each) for share, each in begun.items()}
    lessons = _lessons(source, target, texts, cached, small[SHARES[0]])  # all reduce alike
    maps, told = {"closed form": whole.map}, {}
    for share, start in begun.items():
        trained = train_cache_map(target.engine, start, lessons[False], lessons[True], TRAINING)
        print(source.name, share, trained.held_out, f"{trained.seconds:.0f} s", file=sys.stderr)
        maps[f"{share:.0%}, cut"] = small[share]
        maps[f"{share:.0%}, trained"] = CacheMap.from_bytes(trained.map)
        told[f"{share:.0%}"] = {
            "rank": small[share].map.tensors()["right"].shape[0],
            "bytes_over_bfloat16_target": len(trained.map) / (2 * target.parameters),
            "held_out_kl": trained.held_out,
            "training_seconds": round(trained.seconds),
        }
    judged = caches.judged(texts)
    nats = [caches.nats_after(source, target, each, maps) for each in judged]
    return {
        "texts": len(judged),
        "maps": told,
        "retention": {
            name: caches.retention(nats, name) for name in nats[0] if name not in (BASE, NATIVE)
        },
        "beyond_closed_form": {
            name: caches.gained(nats, name, "closed form") for name in maps if name != "closed form"
        },
    }


def _lessons(
    source: Model, target: Model, texts: Passages, cached: int, by: CacheMap
) -> dict[bool, list[Lesson]]:
    """By whether they are held out."""
    found: dict[bool, list[Lesson]] = {False: [], True: []}
    for text, held in caches.learnt(texts).items():
        passage = Passage.cut(text, cached)
        (mine,) = source.read([passage.cached])
        found[held].append(lesson(target.engine, passage, reduced(mine, by), by))
    return found


if __name__ == "__main__":
    main()
