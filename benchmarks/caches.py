"""What the benchmarks of KV caches share: texts, two models side by side, sums over their cells.

Shapes: n rows, d width of a site.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from actors import hand_over
from actors.cache_folder import CARRIED
from actors.cached_text import OWN, Read, map_inputs, own_tokens
from actors.caching import cell_sites, importance, know, read
from actors.catalog import ModelSpec
from actors.engine import Engine, load
from actors.hand_over import BASE, NATIVE, HandOver, Passage, after
from actors.site_names import Site
from actors.sites import site_width
from actors.weights import default_cache, facts, prepare
from alignment.cache_fit import FittedCaches
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.moments import cross_moment
from cluster.storage import open_store
from evaluation.retention import measure_retention, paired_bootstrap
from jobs.cache_maps import handings
from jobs.carry_cache import cache_map
from jobs.config import RunFile, read_run_file
from jobs.names import ROOT
from jobs.passages import Passages, passages
from jobs.progress import Reporter
from jobs.sections import Caches

COMPONENTS = 64  # of the keys, and of the values, of a layer
SAMPLED = 50  # texts that components are found on
TOGETHER = 4  # texts of a pass
BLOCK_ROWS = 4096
QUARTER = 4
SMALL = 0.02  # of the bytes of the target in bfloat16
DEEP = "own.deep"  # what the target knows after a quarter of its layers, beside OWN: its embeddings


@dataclass(frozen=True, eq=False)
class Model:
    """A live model, its name, and in half precision what it holds of texts that maps learn from.

    `deep`: whether what it knows after a quarter of its layers is wanted as well.
    """

    name: str
    engine: Engine
    deep: bool
    _learnt: dict[str, tuple[Read, dict[str, np.ndarray]]] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        return cell_sites(len(self.engine.blocks))

    @property
    def widths(self) -> dict[str, int]:
        """Of every site of its cache."""
        return {site: site_width(self.engine, Site.parse(site)) for site in self.sites}

    @property
    def quarter(self) -> int:
        """How many layers are a quarter of all."""
        return len(self.engine.blocks) // QUARTER

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.engine.model.parameters())

    def own(self, of: Read) -> dict[str, np.ndarray]:
        """What it knows of tokens for little, and for a quarter of the cost of reading them."""
        layers = {OWN: 0, DEEP: self.quarter} if self.deep else {OWN: 0}
        return {name: know(self.engine, of.ids, many).states for name, many in layers.items()}

    def learn(self, texts: Sequence[str]) -> Iterator[tuple[Read, dict[str, np.ndarray]]]:
        """Each text, and what is known of it for less; it is read once for all directions."""
        new = [text for text in texts if text not in self._learnt]
        for text, of in zip(new, self.read(new), strict=True):
            half = {site: cells.astype(np.float16) for site, cells in of.cells.items()}
            own = {name: known.astype(np.float16) for name, known in self.own(of).items()}
            self._learnt[text] = replace(of, cells=half), own
        for text in texts:
            half, own = self._learnt[text]
            cells = {site: of.astype(np.float32) for site, of in half.cells.items()}
            known = {name: of.astype(np.float32) for name, of in own.items()}
            yield replace(half, cells=cells), known

    def read(self, texts: Sequence[str]) -> Iterator[Read]:
        for start in range(0, len(texts), TOGETHER):
            yield from read(self.engine, self.name, texts[start : start + TOGETHER])


@dataclass(frozen=True, eq=False)
class Pair:
    """One text in two models: rows of the source [n, d], by input, and of the target, by site."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def live(specs: Sequence[ModelSpec], *, deep: bool = False) -> list[Model]:
    """Models that are loaded."""
    return [
        Model(spec.name, load(prepare(spec, default_cache()), threads=2), deep) for spec in specs
    ]


def run_of_caches() -> tuple[RunFile, Caches, Passages]:
    """The run file of caches, its section on them, and the texts of that."""
    run = read_run_file(ROOT / "configs/caches.yaml")
    assert run.kv_cache is not None, "it carries caches"
    return run, run.kv_cache, passages(run.kv_cache, run.seed)


def learnt(texts: Passages) -> dict[str, bool]:
    """The texts that maps learn from, and of each whether it is held out for choices."""
    return dict.fromkeys(texts.fitted, False) | dict.fromkeys(texts.held, True)


def judged(texts: Passages) -> list[Passage]:
    """The texts that maps are judged on."""
    return [each for of in texts.test.values() for each in of]


def meet(source: Model, target: Model, passage: Passage) -> HandOver:
    """Read a text in both models, as far as each may."""
    (mine,) = source.read([passage.cached])
    return hand_over.meet(target.engine, target.name, passage, mine)


@dataclass(frozen=True, eq=False)
class Sums:
    """Of rows to fit, of rows to choose λ on, and both again with rows of other texts paired."""

    training: CacheMoments
    held: CacheMoments
    shuffled_training: CacheMoments
    shuffled_held: CacheMoments


def pairs(source: Model, target: Model, texts: Sequence[str]) -> Iterator[Pair]:
    """Each text in both models, at the tokens that are carried."""
    both = zip(source.learn(texts), target.learn(texts), strict=True)
    for (mine, _), (theirs, own) in both:
        at = own_tokens(mine.spans, theirs.spans)
        inputs = map_inputs(mine, theirs.spans, own[OWN]) | own
        yield Pair(
            {name: torch.from_numpy(rows[at:]) for name, rows in inputs.items()},
            {site: torch.from_numpy(rows[at:]) for site, rows in theirs.cells.items()},
        )


def prepared(source: Model, target: Model, texts: Passages) -> tuple[dict[str, Reduction], Sums]:
    """All that maps of one direction are fitted from: how inputs are reduced, and sums."""
    reduced = reductions(source, target, texts.fitted[:SAMPLED])
    return reduced, _sums_of(source, target, learnt(texts), reduced)


def importance_to(target: Model, texts: Passages, cached: int) -> dict[str, Tensor]:
    """What each number of a cell matters to what the target says next, [d] by site, where so many
    characters are cached."""
    some = texts.fitted[:SAMPLED]
    cuts = [
        (of.ids, Passage.cut(text, cached).tokens_in(of.spans))
        for text, of in zip(some, target.read(some), strict=True)
    ]
    found = importance(target.engine, cuts)
    return {site: torch.from_numpy(of) for site, of in found.items()}


def small(whole: FittedCaches, matters: Mapping[str, Tensor], target: Model) -> CacheMap:
    """Of as many directions as the bytes allow, each number in four bits."""
    return whole.within(int(SMALL * 2 * target.parameters), matters)


def reductions(source: Model, target: Model, texts: Sequence[str]) -> dict[str, Reduction]:
    """What is kept of every input: all of what the target knows, the main components of cells."""
    sample = list(pairs(source, target, texts))
    rows = {name: torch.cat([pair.inputs[name] for pair in sample]) for name in sample[0].inputs}
    whole = (OWN, DEEP)
    return {n: Reduction.of(of, None if n in whole else COMPONENTS) for n, of in rows.items()}


def maps_both_ways(
    run: RunFile, *names: str
) -> Iterator[tuple[str, Engine, Engine, dict[str, CacheMap]]]:
    """Each ordered pair of a run's models, live, with maps of its run file by name: fitted, if need
    be.

    The name of the direction comes first.
    """
    assert run.kv_cache is not None, "it carries caches"
    specs = {spec.name: spec for spec in run.models}
    places = {name: prepare(spec, default_cache()) for name, spec in specs.items()}
    engines = {name: load(place, threads=2) for name, place in places.items()}
    known = {name: facts(place, name, specs[name].dtype) for name, place in places.items()}
    store = open_store(run.store_location)
    for handing in handings(run.kv_cache, passages(run.kv_cache, run.seed), known):
        source, target = (each.name for each in handing.ends)
        pair = run.model_copy(update={"models": (specs[source], specs[target])})
        cache_map(pair, *handing.ends, Reporter())
        maps = {name: CacheMap.from_bytes(store.get(handing.maps[name])) for name in names}
        yield f"{source} -> {target}", engines[source], engines[target], maps


def carried_both_ways(run: RunFile) -> Iterator[tuple[str, Engine, Engine, CacheMap]]:
    """The same, with the map that carries alone."""
    for name, source, target, maps in maps_both_ways(run, CARRIED):
        yield name, source, target, maps[CARRIED]


def directions(run: RunFile, *, deep: bool = False) -> Iterator[tuple[str, Model, Model]]:
    """Each ordered pair of a run's models, live; the name of the direction comes first."""
    for source, target in permutations(live(run.models, deep=deep), 2):
        yield f"{source.name} -> {target.name}", source, target


def nats_after(
    source: Model, target: Model, passage: Passage, maps: Mapping[str, CacheMap]
) -> dict[str, float]:
    """Nats per token of a text's second part: after nothing but the target's own first tokens
    (base), after its own cache (native), and after what each map carries."""
    met = meet(source, target, passage)
    carried = {name: met.carried(by) for name, by in maps.items()}
    return after(target.engine, met, {NATIVE: met.native, **carried})


def retention(nats: Sequence[Mapping[str, float]], name: str) -> dict[str, float] | None:
    """Of one of the maps over several texts, with its interval."""
    base, native, carried = ([of[each] for of in nats] for each in (BASE, NATIVE, name))
    measured = measure_retention(base, native, carried).retention
    return None if measured is None else asdict(measured)


def gained(nats: Sequence[Mapping[str, float]], name: str, over: str) -> dict[str, float]:
    """Retention after one map beyond that after another, paired by text, with its interval."""
    rows = np.array([[of[each] for each in (BASE, NATIVE, over, name)] for of in nats])
    return asdict(paired_bootstrap(rows, lambda m: (m[:, 2] - m[:, 3]) / (m[:, 0] - m[:, 1])))


def _sums_of(
    source: Model, target: Model, held: Mapping[str, bool], reduced: Mapping[str, Reduction]
) -> Sums:
    """`held` says of every text whether it is held out."""
    found = []
    for wanted in (False, True):
        both = pairs(source, target, [text for text, out in held.items() if out is wanted])
        plain, shuffled = None, None
        for x, y in _blocks(both, reduced):
            part = CacheMoments.of(x, y)
            other = part.with_cross(cross_moment(x, y.roll(len(y) // 2, 0)))
            plain = part if plain is None else plain + part
            shuffled = other if shuffled is None else shuffled + other
        assert plain is not None, "no texts"
        assert shuffled is not None, "no texts"
        found.append((plain, shuffled))
    (training, shuffled_training), (held_out, shuffled_held) = found
    return Sums(training, held_out, shuffled_training, shuffled_held)


def _blocks(
    both: Iterator[Pair], reduced: Mapping[str, Reduction]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of many texts at once: a product of sums costs nearly the same for few."""
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    for pair in both:
        xs.append(torch.cat([of(pair.inputs[name]) for name, of in reduced.items()], 1))
        ys.append(torch.cat(list(pair.outputs.values()), 1))
        if sum(map(len, xs)) >= BLOCK_ROWS:
            yield torch.cat(xs), torch.cat(ys)
            xs, ys = [], []
    if xs:
        yield torch.cat(xs), torch.cat(ys)
