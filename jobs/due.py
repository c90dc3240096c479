"""What a wave of models has to read: what no earlier run, and no earlier wave, has done.

A pair belongs to the later of its two waves, when the earlier model's activations wait for it in
the store.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from actors.anchors import AnchorBatch
from actors.catalog import ModelFacts
from actors.comparing import Comparison
from actors.exchange import Exchange, Kept
from actors.folder import Keep, SitePair
from cluster.storage import Store
from jobs.config import RunFile
from jobs.placing import Wave
from jobs.work import Shard, Work, kept, layer_sites, read_sites


@dataclass
class Wanted:
    """Names of models: who is put together now, of this wave or before it, and who is left.

    Those who are left are of this wave, and are set down for a later one.
    """

    together: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def pair(self, names: tuple[str, str], numbers: tuple[int, int], now: int) -> bool:
        """Take in a pair of models of these waves; returns whether its time is now."""
        if max(numbers) == now:
            self.together.update(names)
        elif now in numbers:
            self.left.add(names[numbers.index(now)])
        return max(numbers) == now

    @property
    def names(self) -> set[str]:
        return self.together | self.left


@dataclass(frozen=True, eq=False)
class Due:
    """What one wave reads: shards for moments, by number, and layers for comparisons."""

    run: RunFile
    work: Work
    models: Mapping[str, ModelFacts]
    wave: Wave
    moments: Mapping[int, list[tuple[SitePair, str]]]
    folds: Mapping[int, Wanted]
    comparisons: list[Comparison]
    layers: Wanted

    @cached_property
    def shards(self) -> list[Shard]:
        """Those with something to read."""
        return [shard for shard in self.work.shards if self.sites(shard)]

    @property
    def asked(self) -> list[str]:
        """The models of the wave that are read at all."""
        names = {name for shard in self.shards for name in self.sites(shard)}
        return [name for name in self.wave if name in names]

    def sites(self, shard: Shard) -> dict[str, tuple[str, ...]]:
        """What is read of each model of the wave at the batches of a shard."""
        fold, compare = self._fold(shard).names, self._compare(shard).names
        wanted = {}
        for name in self.wave:
            mapped = read_sites(self.run, self.models[name]) if name in fold else ()
            every = layer_sites(self.models[name]) if name in compare else ()
            if mapped or every:
                wanted[name] = tuple(sorted({*mapped, *every}))
        return wanted

    def keep(self, shard: Shard, batch: AnchorBatch) -> tuple[list[str], Keep]:
        """The models of the wave that are folded at a batch (or none), and how."""
        wanted = self._fold(shard)
        moments = tuple(self.moments.get(shard.number, ()))
        exchange = self._exchange(wanted, batch, lambda facts: read_sites(self.run, facts))
        last = batch == shard.batches[-1]
        return self._mine(wanted), Keep(batch.index, last, moments, exchange)

    def compare(self, shard: Shard, batch: AnchorBatch) -> tuple[list[str], Exchange]:
        """The models of the wave whose layers are compared at a batch (or none), and how."""
        wanted = self._compare(shard)
        return self._mine(wanted), self._exchange(wanted, batch, layer_sites)

    def _fold(self, shard: Shard) -> Wanted:
        return self.folds.get(shard.number, Wanted())

    def _compare(self, shard: Shard) -> Wanted:
        return self.layers if shard in self.work.compared else Wanted()

    def _mine(self, wanted: Wanted) -> list[str]:
        return [name for name in self.wave if name in wanted.names]

    def _exchange(
        self, wanted: Wanted, batch: AnchorBatch, sites: Callable[[ModelFacts], tuple[str, ...]]
    ) -> Exchange:
        def of(names: Iterable[str]) -> tuple[Kept, ...]:
            facts = [self.models[name] for name in sorted(names)]
            return tuple(kept(each, sites(each), batch) for each in facts)

        return Exchange(leave=of(wanted.left), take=of(wanted.together.difference(self.wave)))


def due(
    run: RunFile,
    work: Work,
    models: Mapping[str, ModelFacts],
    waves: Sequence[Wave],
    wave: Wave,
    store: Store,
) -> Due:
    """What a wave has to read. Of `models` are known: it, those before it, and perhaps more.

    For waves of which a model is not known yet, everything is set down.
    """
    names = {facts.fingerprint: name for name, facts in models.items()}
    number = {name: place for place, each in enumerate(waves) for name in each}
    now = waves.index(wave)

    def both(pair: SitePair | Comparison) -> tuple[tuple[str, str], tuple[int, int]]:
        a, b = names[pair.source], names[pair.target]
        return (a, b), (number[a], number[b])

    there = store.present([*work.moments.values(), *(each.to for each in work.comparisons)])
    moments: dict[int, list[tuple[SitePair, str]]] = defaultdict(list)
    folds: dict[int, Wanted] = defaultdict(Wanted)
    for (pair, shard), to in work.moments.items():
        if to not in there and folds[shard].pair(*both(pair), now):
            moments[shard].append((pair, to))
    layers = Wanted()
    comparisons = [
        each for each in work.comparisons if each.to not in there and layers.pair(*both(each), now)
    ]
    if any(name not in models for name in number):
        layers.left.update(wave)
        for shard in work.shards:
            folds[shard.number].left.update(wave)
    found = Due(run, work, models, wave, dict(moments), dict(folds), comparisons, layers)
    _spare(found, store)
    return found


def set_down(run: RunFile, work: Work, models: Mapping[str, ModelFacts]) -> list[str]:
    """Every address at which these models may have left something for later waves."""
    places = []
    for facts in models.values():
        mapped, layers = read_sites(run, facts), layer_sites(facts)
        places += [kept(facts, mapped, batch).to for s in work.shards for batch in s.batches]
        places += [kept(facts, layers, batch).to for s in work.compared for batch in s.batches]
    return places


def _spare(found: Due, store: Store) -> None:
    """Leave out what an earlier run has set down already."""
    work = found.work
    if not found.layers.left and not any(wanted.left for wanted in found.folds.values()):
        return
    there = store.present(set_down(found.run, work, {n: found.models[n] for n in found.wave}))

    def whole(name: str, sites: tuple[str, ...], shards: Iterable[Shard]) -> bool:
        facts = found.models[name]
        return all(kept(facts, sites, b).to in there for shard in shards for b in shard.batches)

    for shard in work.shards:
        wanted = found.folds.get(shard.number, Wanted())
        for name in list(wanted.left):
            if whole(name, read_sites(found.run, found.models[name]), [shard]):
                wanted.left.discard(name)
    for name in list(found.layers.left):
        if whole(name, layer_sites(found.models[name]), work.compared):
            found.layers.left.discard(name)
