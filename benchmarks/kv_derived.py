"""What of a context survives between SmolLM2 and models that were made of it, in closed form.

Exact twins compute the same function in another shape: another basis of the residual stream, heads
and neurons in another order. The sparse one has four experts with noise, and is a model of its own.
A model that hands over to itself what it holds is the identity.

    python -m benchmarks.kv_derived
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from actors.cache_folder import CARRIED, MAPS, CacheFolder
from actors.caching import continuation_nll, read
from actors.catalog import Derivation, ModelSpec
from actors.engine import load
from actors.fleet import find, spec
from actors.folder import report_address
from actors.hand_over import BASE, meet
from actors.host import ModelHost
from actors.weights import default_cache, prepare
from benchmarks.caches import retention, run_of_caches
from benchmarks.record import record
from cluster.storage import DirectoryStore, Store, address
from jobs.cache_maps import batches_of
from jobs.passages import SAMPLED, Passages, passages
from jobs.sections import Caches

RECIPES: dict[str, dict[str, Any]] = {
    "rotated": {"recipe": "rotated"},
    "permuted": {"recipe": "permuted"},
    "sparse": {"recipe": "sparse", "options": {"noise": 0.1}},
}
FEWER = {"texts": 24, "held": 4, "test": 8, "components": 32}  # twins need no more


def main() -> None:
    """Measure and record."""
    run, section, _ = run_of_caches()
    section = section.model_copy(update=FEWER)
    texts = passages(section, run.seed)
    plain = spec(find("smollm2-135m-instruct"))
    base = ModelHost(plain, default_cache(), 2)
    figures = {
        "asked": {"exact twins": ">= 0.99", "identity": "1 exactly", "sparse": ">= 0.95"},
        "settings": FEWER,
        "kinds": list(section.content),
        "identity": _identity(texts, plain),
    }
    crossings: dict[str, dict[str, Any]] = {}
    for name, of in RECIPES.items():
        made = ModelSpec(name=name, derived=Derivation(base=plain, **of))
        crossings |= _pair(section, texts, base, ModelHost(made, default_cache(), 2))
        record("kv_derived", {**figures, "crossings": crossings})  # what is measured stays


def _pair(
    section: Caches, texts: Passages, base: ModelHost, other: ModelHost
) -> dict[str, dict[str, Any]]:
    """Both directions, by name; each text is read once for both."""
    directions = ((base, other), (other, base))
    found = {}
    with TemporaryDirectory() as scratch:
        store = DirectoryStore(Path(scratch))
        folders = [
            CacheFolder(
                store,
                section.components,
                SAMPLED,
                (source.facts().head_width, target.facts().head_width),
            )
            for source, target in directions
        ]
        fitted, held_out = batches_of(texts.fitted), batches_of(texts.held)
        batches = [*fitted, *held_out]
        for number, some in enumerate(batches):
            read = {host.facts().name: host.read(some) for host in (base, other)}
            for folder, (source, target) in zip(folders, directions, strict=True):
                held = number >= len(fitted)
                mine, theirs = (read[of.facts().name] for of in (source, target))
                folder.fold(number, held, mine, theirs, target.known(some))
        for folder, (source, target) in zip(folders, directions, strict=True):
            name = f"{source.facts().name} -> {target.facts().name}"
            maps = {each: address(name, each) for each in MAPS}
            folder.fit(len(batches), maps)
            found[name] = _crossing(texts, store, maps, source, target)
            print(name, found[name], file=sys.stderr)
    return found


def _crossing(
    texts: Passages,
    store: Store,
    maps: dict[str, str],
    source: ModelHost,
    target: ModelHost,
) -> dict[str, Any]:
    files = {name: np.frombuffer(store.get(to), np.uint8) for name, to in maps.items()}
    nats = []
    for of in texts.test.values():
        read = source.read([passage.cached for passage in of])
        nats += target.hand_over(of, read, (*read[1:], read[0]), files, ())
    report = json.loads(store.get(report_address(maps[CARRIED])))
    return {
        "texts": len(nats),
        "held_out_r2": float(np.mean(list(report["held_out_r2"].values()))),
        "sites_from_one_layer": len(report["from_one_layer"]) / len(report["held_out_r2"]),
        "retention": {name: retention(nats, name) for name in nats[0] if name != BASE},
    }


def _identity(texts: Passages, of: ModelSpec) -> list[float]:
    """The least and the greatest retention of a text that its reader goes on from itself."""
    engine = load(prepare(of, default_cache()), threads=2)
    found = []
    for passage in (each for kind in texts.test.values() for each in kind):
        (own,) = read(engine, of.name, [passage.cached])
        met = meet(engine, of.name, passage, own)
        variants = [met.native, own.first(met.cached)]
        (base,) = continuation_nll(engine, met.fed, [met.own])
        native, itself = continuation_nll(engine, met.fed, variants)
        found.append(float((itself - base) / (native - base)))
    return [min(found), max(found)]


if __name__ == "__main__":
    main()
