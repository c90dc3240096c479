"""What it gives when the target reads some of the cached tokens again, by how many and by which.

- last: those just before what follows.
- first: those just after the target's own first tokens.
- at random.
- cut otherwise: those that the source's tokenizer cuts otherwise, and then the last ones.
- farthest: those whose carried cells are farthest from the target's own, as only an oracle knows.

    python -m benchmarks.kv_again
"""

import sys
from collections.abc import Callable, Mapping

import numpy as np

from actors.caching import read
from actors.engine import Engine
from actors.hand_over import HandOver, Passage, after, meet
from actors.mending import cut_otherwise
from actors.patching import patch
from alignment.cache_map import CacheMap
from benchmarks.caches import carried_both_ways, retention, run_of_caches
from benchmarks.record import record

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
EACH = 5  # texts of each kind
Cells = Mapping[str, np.ndarray]
# Of a text and what is carried of it: a number for each cached token, the highest to be read again.
Order = Callable[[HandOver, Cells], np.ndarray]


def main() -> None:
    """Measure and record."""
    run, _, texts = run_of_caches()
    test = [passage for of in texts.test.values() for passage in of[:EACH]]
    crossings = {}
    for name, source, target, by in carried_both_ways(run):
        nats = [_nats(source, target, by, passage) for passage in test]
        crossings[name] = {each: retention(nats, each) for each in nats[0] if each != "base"}
        print(name, crossings[name], file=sys.stderr)
    record("kv_again", {"texts": len(test), "retention": crossings})


def _nats(source: Engine, target: Engine, by: CacheMap, passage: Passage) -> dict[str, float]:
    (mine,) = read(source, "source", [passage.cached])
    met = meet(target, "target", passage, mine)
    carried = met.carried(by)
    own = len(next(iter(met.own.values())))
    variants: dict[str, Cells] = {"native": met.native, "carried": carried}
    for name, order in ORDERS.items():
        ranked = np.argsort(-order(met, carried)[own:], kind="stable") + own
        for share in SHARES:
            chosen = ranked[: round(share * met.cached)].tolist()
            again = patch(target, met.ids[: met.cached], carried, chosen)
            variants[f"{name}, {share:.1%}"] = again
    return after(target, met, variants)


def _last(met: HandOver, _: Cells) -> np.ndarray:
    return np.arange(met.cached)


def _first(met: HandOver, _: Cells) -> np.ndarray:
    return -np.arange(met.cached)


def _at_random(met: HandOver, _: Cells) -> np.ndarray:
    return np.random.default_rng(met.cached).random(met.cached)


def _cut_otherwise(met: HandOver, _: Cells) -> np.ndarray:
    return np.arange(met.cached) + met.cached * cut_otherwise(met)


def _farthest(met: HandOver, carried: Cells) -> np.ndarray:
    """Over all sites, each in units of its typical distance from its mean."""
    far = np.zeros(met.cached)
    for site, cells in carried.items():
        typical = np.linalg.norm(met.native[site] - met.native[site].mean(0), axis=1).mean()
        far += np.linalg.norm(cells - met.native[site], axis=1) / typical
    return far


ORDERS: dict[str, Order] = {
    "last": _last,
    "first": _first,
    "at random": _at_random,
    "cut otherwise": _cut_otherwise,
    "farthest (oracle)": _farthest,
}


if __name__ == "__main__":
    main()
