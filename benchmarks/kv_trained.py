"""How much more of a context survives when the map of caches is trained through its target.

Starts at the small map of configs/caches.yaml, of 2 % of the target's bytes in four bits, and
trains it on the texts that it was fitted to, as it is in four bits, so that the target says after
carried cells what it says after the text itself. Each direction is recorded when it is done.

    python -m benchmarks.kv_trained [TARGET ...]
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from actors.cache_folder import CARRIED, SMALL
from actors.cache_training import CacheTraining, Lesson, lesson, reduced, train_cache_map
from actors.caching import read
from actors.engine import Engine
from actors.hand_over import BASE, NATIVE, Passage, after, after_late, meet
from alignment.cache_map import CacheMap
from benchmarks import caches
from benchmarks.caches import QUARTER
from benchmarks.record import record
from jobs.passages import Passages

TRAINING = CacheTraining()
TRAINED = "small, trained"


def main() -> None:
    """Measure and record."""
    run, section, texts = caches.run_of_caches()
    wanted = sys.argv[1:]
    for name, source, target, maps in caches.maps_both_ways(run, CARRIED, SMALL):
        into = name.rpartition(" ")[2]
        if wanted and into not in wanted:
            continue
        measured = _crossing(source, target, maps, texts, section.cached)
        record(
            f"kv_trained.into-{into}",
            {
                "asked": {
                    "trained through the target": ">= 0.90",
                    "a quarter read again": ">= 0.97",
                    "<= 2 % of the target's bytes": "loses <= 0.02",
                },
                "training": asdict(TRAINING),
                "crossing": name,
                **measured,
            },
        )


def _crossing(
    source: Engine, target: Engine, maps: Mapping[str, CacheMap], texts: Passages, cached: int
) -> dict[str, Any]:
    start = maps[SMALL]
    fitted, held = (
        _lessons(source, target, some, cached, start) for some in (texts.fitted, texts.held)
    )
    trained = train_cache_map(target, start.to_bytes(4), fitted, held, TRAINING)
    print(trained.held_out, f"{trained.seconds:.0f} s", file=sys.stderr)
    every = {**maps, TRAINED: CacheMap.from_bytes(trained.map)}
    judged = caches.judged(texts)
    nats = [_nats(source, target, passage, every) for passage in judged]
    parameters = sum(each.numel() for each in target.model.parameters())
    return {
        "texts": len(judged),
        "rank": start.map.tensors()["right"].shape[0],
        "bytes_over_bfloat16_target": len(trained.map) / (2 * parameters),
        "held_out_kl": trained.held_out,
        "training_seconds": round(trained.seconds),
        "retention": {
            name: caches.retention(nats, name) for name in nats[0] if name not in (BASE, NATIVE)
        },
        "beyond_the_whole_map": {
            name: caches.gained(nats, name, CARRIED) for name in (SMALL, TRAINED)
        },
    }


def _lessons(
    source: Engine, target: Engine, texts: Sequence[str], cached: int, by: CacheMap
) -> list[Lesson]:
    passages = [Passage.cut(text, cached) for text in texts]
    reads = (read(source, "source", [each.cached])[0] for each in passages)
    return [
        lesson(target, passage, reduced(mine, by), by)
        for passage, mine in zip(passages, reads, strict=True)
    ]


def _nats(
    source: Engine, target: Engine, passage: Passage, maps: Mapping[str, CacheMap]
) -> dict[str, float]:
    """After what each map carries; and that again with the last quarter read by the target."""
    (mine,) = read(source, "source", [passage.cached])
    met = meet(target, "target", passage, mine)
    carried = {name: met.carried(by) for name, by in maps.items()}
    late = {
        f"{name}, quarter read again": after_late(target, met, cells, 1 / QUARTER)
        for name, cells in carried.items()
    }
    return {**after(target, met, {NATIVE: met.native, **carried}), **late}


if __name__ == "__main__":
    main()
