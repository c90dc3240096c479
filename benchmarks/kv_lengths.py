"""What a hand-over keeps and costs, by the length of the context, both ways of the demo.

Maps are those of configs/caches.yaml, whole and small, fitted to texts of 800 characters. Texts
here are stories one after the other, to none of which a map was fitted. A hand-over is timed from
the source's cells to a cache that the target can go on from, beside reading the text in the target.

    python -m benchmarks.kv_lengths
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from actors.cache_folder import CARRIED, SMALL
from actors.cached_text import Read
from actors.caching import fill, read
from actors.cargo.kv_cache import receive
from actors.corpora import read_texts
from actors.engine import Engine
from actors.fleet import find
from actors.hand_over import BASE, NATIVE, Passage, meet, nats
from alignment.cache_map import CacheMap
from benchmarks.caches import maps_both_ways, retention, run_of_caches
from benchmarks.record import record
from jobs.passages import ALIKE, Passages, by_hash
from jobs.sections import Caches

# Of contexts in tokens, and texts of each; with what is judged, SmolLM2's context is 8,192.
LENGTHS = {128: 16, 512: 16, 2048: 8, 7800: 3}
CHARACTERS_A_TOKEN = 4.2  # of these stories, in both models
CONTENT, JUDGED = "news", 300
AGAIN = 0.25
ON_PAPER = (32_768, 131_072)
LARGE = ("llama-3.1-8b", "llama-3.1-70b")
COMPONENTS, RANK = 32, 1024  # of a map between these two, on paper


def main() -> None:
    """Measure and record."""
    run, section, texts = run_of_caches()
    stories = _stories(section, texts)
    crossings = {
        name: {length: _length(stories, source, target, maps, length) for length in LENGTHS}
        for name, source, target, maps in maps_both_ways(run, CARRIED, SMALL)
    }
    record(
        "kv_lengths",
        {
            "asked": {
                "hand-over, of reading it, from 512 tokens": "<= 1/5",
                "8B to 70B, by FLOP count": "<= 1/50",
            },
            "crossings": crossings,
            "trend": {name: _trend(of) for name, of in crossings.items()},
            "flops": _flops(),
        },
    )


def _stories(section: Caches, texts: Passages) -> tuple[str, ...]:
    """Those of which nothing is among the texts that maps are fitted to or judged on."""
    judged = [each.text for of in texts.test.values() for each in of]
    used = {text[:ALIKE] for text in (*texts.fitted, *texts.held, *judged)}
    apart = {text[:ALIKE]: text for text in read_texts(section.content[CONTENT])}
    return by_hash([text for start, text in apart.items() if start not in used], 0)


def _length(
    stories: Sequence[str],
    source: Engine,
    target: Engine,
    maps: dict[str, CacheMap],
    length: int,
) -> dict[str, Any]:
    found, costs = [], []
    for passage, other in _passages(stories, length):
        (mine,), (others,) = (read(source, "source", [each.cached]) for each in (passage, other))
        met = meet(target, "target", passage, mine)
        found.append(nats(target, met, maps, CARRIED, others, (AGAIN,)))
        if len(costs) < 3:
            costs.append(_cost(target, passage, mine, maps))
        print(length, len(found), found[-1], costs[-1], file=sys.stderr)
    fastest = {name: min(cost[name] for cost in costs) for name in costs[0]}
    return {
        "texts": len(found),
        "native_gain_nats": float(np.mean([of[BASE] - of[NATIVE] for of in found])),
        "retention": {name: retention(found, name) for name in found[0] if name != BASE},
        **fastest,
        "share_of_reading": {
            name: fastest[f"{name}_seconds"] / fastest["reading_seconds"] for name in maps
        },
    }


def _passages(stories: Sequence[str], length: int) -> Iterator[tuple[Passage, Passage]]:
    """Texts of which so many tokens are cached, each beside another one."""
    characters, texts, at = round(length * CHARACTERS_A_TOKEN), [], 0
    for _ in range(LENGTHS[length] + 1):
        text = ""
        while len(text) < characters + JUDGED:
            text += stories[at % len(stories)] + "\n\n"
            at += 1
        texts.append(Passage.cut(text[: characters + JUDGED], characters))
    yield from pairwise(texts)


def _cost(
    target: Engine, passage: Passage, mine: Read, maps: dict[str, CacheMap]
) -> dict[str, float]:
    (own,) = read(target, "target", [passage.cached])
    ids = torch.from_numpy(own.ids)[None]

    def hand_over(by: CacheMap) -> None:
        fill(target, [receive(target, "target", passage.cached, mine, by).cells])

    with torch.inference_mode():
        reading = _seconds(lambda: target.cache(ids))
        handing = {
            f"{name}_seconds": _seconds(lambda by=by: hand_over(by)) for name, by in maps.items()
        }
    return {
        "tokens": len(own.ids),
        "reading_seconds": reading,
        **handing,
        "text_bytes": len(passage.cached.encode()),
        "source_cache_bytes_in_bfloat16": 2 * sum(of.size for of in mine.cells.values()),
    }


def _seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _trend(of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Retention against the logarithm of the length, drawn on to lengths nobody measured."""
    kept = {length: each["retention"][CARRIED] for length, each in of.items()}
    known = {length: each["value"] for length, each in kept.items() if each is not None}
    if len(known) < 3:
        return {"on_paper": "too few lengths with a native gain"}
    slope, start = np.polyfit(np.log2(list(known)), list(known.values()), 1)
    return {
        "by_doubling": float(slope),
        "on_paper": {length: float(start + slope * np.log2(length)) for length in ON_PAPER},
    }


def _flops() -> dict[str, Any]:
    """For each token: reading it in the larger of two models, and what a map costs, by shapes."""
    small, large = (find(name).blueprint for name in LARGE)
    inputs = 2 * small.layers * COMPONENTS + 2 * large.width
    reducing = 2 * small.layers * COMPONENTS * small.kv_heads * small.head_width
    outputs = 2 * large.layers * large.kv_heads * large.head_width
    reading = 2 * (large.active_parameters - large.embedding_parameters)
    maps = {
        "full rank": 2 * (reducing + inputs * outputs),
        f"rank {RANK}": 2 * (reducing + RANK * (inputs + outputs)),
    }
    shares = {name: flops / reading for name, flops in maps.items()}
    return {"models": LARGE, "reading": reading, "maps": maps, "share_of_reading": shares}


if __name__ == "__main__":
    main()
