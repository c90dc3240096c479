"""What of a context survives between SmolLM2 and models that were made of it.

Exact twins compute the same function in another shape: another basis of the residual stream, heads
and neurons in another order. The sparse one has four experts with noise, and is a model of its own.

    python -m benchmarks.kv_derived
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from actors.catalog import Derivation, ModelSpec
from actors.fleet import find, spec
from alignment.cache_map import fit_caches
from benchmarks import caches
from benchmarks.caches import Model
from benchmarks.record import record

RECIPES: dict[str, dict[str, Any]] = {
    "rotated": {"recipe": "rotated"},
    "permuted": {"recipe": "permuted"},
    "sparse": {"recipe": "sparse", "options": {"noise": 0.1}},
}


def main() -> None:
    """Measure and record."""
    texts = caches.texts_by_kind()
    plain = spec(find("smollm2-135m-instruct"))
    specs = [
        ModelSpec(name=name, derived=Derivation(base=plain, **of)) for name, of in RECIPES.items()
    ]
    base, *others = caches.live([plain, *specs])
    crossings = {}
    for source, target in chain.from_iterable(((base, each), (each, base)) for each in others):
        name = f"{source.name} -> {target.name}"
        crossings[name] = _crossing(source, target, texts)
        print(name, crossings[name], file=sys.stderr)
    record(
        "kv_derived",
        {
            "asked": {"exact twins": ">= 0.99", "sparse": ">= 0.95"},
            "components": caches.COMPONENTS,
            "crossings": crossings,
        },
    )


def _crossing(source: Model, target: Model, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    reduced, sums = caches.prepared(source, target, texts)
    shuffled = sums.shuffled_training, sums.shuffled_held
    maps = {
        "closed form": fit_caches(sums.training, sums.held, reduced, target.widths).map,
        "shuffled rows": fit_caches(*shuffled, reduced, target.widths).map,
    }
    nats = [caches.nats_after(source, target, text, maps) for text in caches.judged(texts)]
    return {name: caches.retention(nats, name) for name in maps}


if __name__ == "__main__":
    main()
