"""What a target that has read the text itself gains by what another model made of it.

Fusion: every cell is the target's own, moved a share of the way to the carried one. The gain is
over the target's own cache, in nats per token; the controls are cells of another text, and cells
that a map makes of the target's own tokens, without the source.

    python -m benchmarks.kv_fused
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from actors.cache_folder import CARRIED, TOKENS
from actors.caching import continuation_nll, read
from actors.engine import Engine
from actors.hand_over import ANOTHER, NATIVE, Passage, fused, meet
from alignment.cache_map import CacheMap
from benchmarks.caches import maps_both_ways, run_of_caches
from benchmarks.record import record
from evaluation.retention import paired_bootstrap

SHARES = (0.05, 0.1, 0.2, 0.4)


def main() -> None:
    """Measure and record."""
    run, _, texts = run_of_caches()
    crossings = {}
    for name, source, target, maps in maps_both_ways(run, CARRIED, TOKENS):
        nats = [
            _nats(source, target, maps, passage, other)
            for of in texts.test.values()
            for passage, other in zip(of, (*of[1:], of[0]), strict=True)
        ]
        crossings[name] = _gains(nats)
        print(name, crossings[name], file=sys.stderr)
    record("kv_fused", {"texts": len(nats), "gain_nats_per_token": crossings})


def _nats(
    source: Engine, target: Engine, maps: dict[str, CacheMap], passage: Passage, other: Passage
) -> dict[str, float]:
    (mine,), (others,) = (read(source, "source", [each.cached]) for each in (passage, other))
    met = meet(target, "target", passage, mine)
    ways = {
        CARRIED: met.carried(maps[CARRIED]),
        TOKENS: met.carried(maps[TOKENS]),
        ANOTHER: met.carried(maps[CARRIED], others),
    }
    variants = {
        f"{name}, {share:.0%}": fused(met.native, cells, share)
        for name, cells in ways.items()
        for share in SHARES
    }
    found = continuation_nll(target, met.fed, [met.native, *variants.values()])
    return dict(zip((NATIVE, *variants), found.tolist(), strict=True))


def _gains(nats: Sequence[dict[str, float]]) -> dict[str, Any]:
    def gain(name: str) -> dict[str, float]:
        rows = np.array([[of[NATIVE], of[name]] for of in nats])
        return asdict(paired_bootstrap(rows, lambda means: means[:, 0] - means[:, 1]))

    return {name: gain(name) for name in nats[0] if name != NATIVE}


if __name__ == "__main__":
    main()
