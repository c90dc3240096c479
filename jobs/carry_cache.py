"""`isthmus carry kv_cache`: what one model has read, for another to go on from.

Shapes: p tokens of the text, n continuations.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from safetensors import torch as safetensors_torch

from actors.cache_folder import CARRIED, SMALL
from actors.cached_text import Read, own_tokens
from actors.cargo.kv_cache import with_own
from actors.cargo.memory_package import MemoryPackage
from actors.catalog import ModelFacts
from actors.folder import report_address
from actors.hand_over import fused
from actors.host import ModelHost
from actors.verifying import TOKENS
from actors.weights import default_cache
from alignment.cache_map import CacheMap
from cluster.session import session
from cluster.storage import open_store
from evaluation.retention import Interval, measure_retention
from jobs.cache_maps import TRAINED, CacheFitting, handings
from jobs.config import ConfigError, RunFile
from jobs.ends import RECORD_FILE, CarryError, carried_directory, ends, require_free
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.texts import gather
from jobs.waves import crew

DEFAULT_RUN = ROOT / "configs" / "caches.yaml"  # its texts and maps, where a user names no run
CACHE_FILE = "cache.safetensors"
STEPS = 16  # in which more of the tokens are read again, up to all
# Of these the first ones, on which all later ones lean; the others are the last of the text, which
# give most (benchmarks/results/kv_again.json).
EARLY = 8

_README = """\
What {target} would hold of a text of {tokens:,} tokens, carried from {source} as {record} says.
To go on from it with transformers, in the model's own type ({dtype}):

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(...)
    held = load_file("{cache}")
    cache = DynamicCache(config=model.config)
    for layer in range({layers}):
        cache.update(held[f"keys.{{layer}}"][None], held[f"values.{{layer}}"][None], layer)
    ids = torch.cat((held["ids"], more))[None]  # more: ids of what comes after the text
    model.generate(ids, past_key_values=cache)

memory.json and memory.safetensors are the same as a memory package, to be carried on from here.
"""


@dataclass(frozen=True)
class CacheWish:
    """What a user asks for: a memory package, and names of models as in other verbs.

    With a `quality` the target reads as many of the tokens again as this retention takes. With
    `fuse` the target reads the text as well, and its own cells are moved that share of the way to
    the carried ones. With `small` the run's small map is used, trained where the run trains it.
    """

    package: Path
    source: str
    target: str
    out: Path
    run: Path | None = None
    verify: bool = False
    quality: float | None = None
    fuse: float | None = None
    small: bool = False


@dataclass(frozen=True)
class CarriedCache:
    """What was carried: how many tokens, of which the target read the first `own` itself, and
    `again` more after all; how good the map is; and the retention that this very cache was seen to
    have, where it was looked at."""

    tokens: int
    own: int
    again: int
    held_out_r2: float
    retention: Interval | None


def carry_cache(wish: CacheWish, reporter: Reporter) -> CarriedCache:
    """Carry a memory package into the target, and write what transformers can go on from.

    The directory appears whole or not at all; nothing is tracked. A map that is not there is fitted
    on Ray, and kept in the run's store.

    Raises:
        CarryError: the directory is not empty, both models are the same, or the quality is none.
        PackageError: the package is damaged, or of another model or revision.
        CacheError: the text is longer than the target's context, or leaves no room to go on.
        ModelError, ConfigError: a model, or the run file, is not there or broken.
    """
    require_free(wish.out)
    if wish.quality is not None and not 0 < wish.quality <= 1:
        raise CarryError(f"a quality of {wish.quality:g}: retention to reach is above 0, up to 1")
    if wish.fuse is not None and not 0 < wish.fuse < 1:
        raise CarryError(f"fusion at {wish.fuse:g}: the share of the way is above 0, below 1")
    if wish.fuse is not None and wish.quality is not None:
        raise CarryError("fusion and a quality to reach: with fusion the target reads all tokens")
    package = MemoryPackage.load(wish.package)
    run, source, target = ends(wish.source, wish.target, wish.run, DEFAULT_RUN, reporter)
    package.require_of(source)
    address, by, r2 = cache_map(run, source, target, reporter, small=wish.small)
    with reporter.stage(f"loading {target.name}"):
        host = ModelHost(run.models[1], default_cache(), run.cluster.threads_per_model)
    with reporter.stage("carrying"):
        received = host.receive(package.text, package.read, by)
    own = own_tokens(package.read.spans, received.spans)
    if wish.fuse is not None:
        with reporter.stage("reading natively, to fuse"):
            (native,) = host.read([package.text])
        received = replace(received, cells=fused(native.cells, received.cells, wish.fuse))
    settled = _Settled(received.cells, 0, None)
    if wish.verify or wish.quality is not None:
        with reporter.stage("going on natively, to compare"):
            settled = _settled(host, package.text, received, own, wish.quality)
    carried = MemoryPackage(target.name, package.text, replace(received, cells=settled.cells))
    done = CarriedCache(len(received.ids), own, settled.again, r2, settled.retention)
    kept = done.retention
    record: dict[str, JsonValue] = {
        "package": str(wish.package),
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "target": target.name,
        "target_fingerprint": target.fingerprint,
        "tokens": done.tokens,
        "tokens_of_the_target_itself": own,
        "tokens_read_again": done.again,
        "fused": wish.fuse,
        "map_address": address,
        "held_out_r2": r2,
        "retention": None if kept is None else [kept.value, kept.low, kept.high],
    }
    _write(carried, host, (source, target), record, wish.out)
    return done


@dataclass(frozen=True, eq=False)
class _Settled:
    """Cells of the target, how many of its tokens it read again, and their retention."""

    cells: dict[str, np.ndarray]
    again: int
    retention: Interval | None


def _settled(
    host: ModelHost, text: str, received: Read, own: int, quality: float | None
) -> _Settled:
    """What is carried, with as few tokens read again as reach the quality, if one is asked for."""
    trial = host.go_on(text)
    base = host.foresee(trial, trial.native.first(own))
    native = host.foresee(trial, trial.native.cells)

    def tried(again: int) -> _Settled:
        early = min(again, EARLY)
        kept = received.first(len(received.ids) - again + early)
        cells = host.reread(received.ids, with_own(kept, trial.native.first(own + early)))
        found = measure_retention(base, native, host.foresee(trial, cells))
        return _Settled(cells, again, found.retention)

    best = tried(0)
    if quality is None:
        return best
    if best.retention is None:
        raise CarryError(
            f"the next {TOKENS} tokens hardly depend on this text: there is no quality to reach"
        )
    steps = [round(step * (len(received.ids) - own) / STEPS) for step in range(STEPS + 1)]
    short, enough = 0, STEPS  # with all of them read again nothing is carried
    if best.retention.value >= quality:
        return best
    best = tried(steps[enough])
    while enough - short > 1:
        middle = (short + enough) // 2
        found = tried(steps[middle])
        if found.retention is not None and found.retention.value >= quality:
            best, enough = found, middle
        else:
            short = middle
    return best


def cache_map(
    run: RunFile,
    source: ModelFacts,
    target: ModelFacts,
    reporter: Reporter,
    *,
    small: bool = False,
) -> tuple[str, CacheMap, float]:
    """The map between two models, after its address and before the mean R² on held-out rows of the
    whole one; fitted now, if it is not there.

    Raises:
        ConfigError: the run file does not say what it is fitted to, or how small a map is to be.
        And what fitting raises: see `jobs.cache_maps`.
    """
    if run.kv_cache is None:
        raise ConfigError(
            f"run {run.name} has no section kv_cache, which says what maps of caches are fitted to"
        )
    if small and run.kv_cache.small is None:
        raise ConfigError(f"run {run.name} has no kv_cache.small, which says how small a map is")
    store = open_store(run.store_location)
    with reporter.stage("looking for the map"):
        texts = gather(run)
        assert texts.passages is not None, "a run with the section has them"
        models = {each.name: each for each in (source, target)}
        forth, _ = handings(run.kv_cache, texts.passages, models)
        there = store.present(forth.outputs) >= forth.outputs
    if not there:
        reporter.note("there is no map yet: it is fitted now, and kept in the store")
        with (
            session(run.cluster.address) as cluster,
            crew(run, texts, cluster, reporter) as loaded,
        ):
            fitting = CacheFitting(run, run.kv_cache, texts.passages, loaded, store, reporter)
            fitting.complete([forth])
    r2 = json.loads(store.get(report_address(forth.maps[CARRIED])))["held_out_r2"]
    chosen = (TRAINED if run.kv_cache.trained else SMALL) if small else CARRIED
    place = forth.maps[chosen]
    return place, CacheMap.from_bytes(store.get(place)), float(np.mean(list(r2.values())))


def _write(
    carried: MemoryPackage,
    host: ModelHost,
    ends_of: tuple[ModelFacts, ModelFacts],
    record: dict[str, JsonValue],
    out: Path,
) -> None:
    """The whole directory: for transformers, as a package, the record and how to use it."""
    source, target = ends_of
    held = {"ids": torch.from_numpy(carried.read.ids), **host.as_cached(carried.read.cells)}
    readme = _README.format(
        source=source.name,
        target=target.name,
        tokens=len(carried.read.ids),
        record=RECORD_FILE,
        dtype=target.dtype,
        cache=CACHE_FILE,
        layers=target.layers,
    )
    with carried_directory(out, record, readme) as whole:
        safetensors_torch.save_file(held, whole / CACHE_FILE)
        carried.write(whole)
