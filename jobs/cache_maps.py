"""Maps of caches between the models of a run: read in pairs, folded, fitted, each once."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import permutations
from typing import TypeVar

import numpy as np

from actors.anchors import fingerprint
from actors.cache_folder import BITS, FORMAT, MAPS, SMALL, SMALL_BITS, CacheFolder
from actors.cache_training import CacheTraining, TrainedCaches
from actors.catalog import ModelFacts
from actors.folder import report_address
from actors.hand_over import Passage
from cluster.gang import Gang, Ref, fetch, share
from cluster.placement import InsufficientResources
from cluster.storage import Store, address
from cluster.stream import stream
from jobs.attempts import persist
from jobs.config import ConfigError, RunFile
from jobs.passages import BATCH_TEXTS, SAMPLED, Passages, sampled
from jobs.progress import Reporter, Stage
from jobs.resident import cache_folder
from jobs.sections import Caches
from jobs.waves import Crew

_FIRST, _FURTHER = 60, 5  # seconds that a pair's folders wait for room
TRAINED = "trained"  # the name of a map, beside those of `actors.cache_folder`
Text = TypeVar("Text", str, Passage)


@dataclass(frozen=True)
class Handing:
    """One ordered pair of models, and the addresses of its maps by name."""

    source: ModelFacts
    target: ModelFacts
    maps: Mapping[str, str]

    @property
    def ends(self) -> tuple[ModelFacts, ModelFacts]:
        return self.source, self.target

    @property
    def names(self) -> tuple[str, str]:
        return self.source.name, self.target.name

    @property
    def outputs(self) -> set[str]:
        """Every address that fitting and training leave."""
        return {to for each in self.maps.values() for to in (each, report_address(each))}

    @property
    def fitted(self) -> set[str]:
        """Those that fitting leaves."""
        return self.outputs - self.trained

    @property
    def trained(self) -> set[str]:
        """Those that training leaves, if a map is trained."""
        to = self.maps.get(TRAINED)
        return set() if to is None else {to, report_address(to)}


def handings(section: Caches, texts: Passages, models: Mapping[str, ModelFacts]) -> list[Handing]:
    """Every ordered pair, in the order of the models."""
    return [
        Handing(
            models[source], models[target], _maps(section, texts, models[source], models[target])
        )
        for source, target in permutations(models, 2)
    ]


def batches_of(texts: Sequence[Text]) -> list[tuple[Text, ...]]:
    """Those that are read together, in their order."""
    return [tuple(texts[at : at + BATCH_TEXTS]) for at in range(0, len(texts), BATCH_TEXTS)]


def _maps(
    section: Caches, texts: Passages, source: ModelFacts, target: ModelFacts
) -> dict[str, str]:
    settled = [fingerprint(texts.fitted), fingerprint(texts.held), BATCH_TEXTS, SAMPLED, BITS]
    ends = [source.fingerprint, target.fingerprint, section.components]
    maps = {name: address("cache map", FORMAT, settled, ends, name) for name in MAPS}
    small = [SMALL_BITS, section.small, section.cached]
    if section.small is not None:
        maps[SMALL] = address("cache map", FORMAT, settled, ends, SMALL, small)
    if section.trained:
        maps[TRAINED] = address("trained cache map", maps[SMALL], asdict(CacheTraining()))
    return maps


@dataclass(frozen=True, eq=False)
class CacheFitting:
    """Who reads, where maps are kept, and who is told."""

    run: RunFile
    section: Caches
    texts: Passages
    crew: Crew
    store: Store
    reporter: Reporter

    def complete(self, wanted: Sequence[Handing]) -> None:
        """Fit every map that is not there, and then train those that are; both directions of a pair
        are read for at once, where there is room for both of their folders.

        Raises:
            ConfigError: two models do not fit into the cluster together.
            FitError: no map is as small as is asked.
            ShardingError: no gradients go through a target that is held as it is.
            ActorLost: a process died too often.
        """
        pairs: dict[frozenset[str], list[Handing]] = {}
        for each in self._open(wanted):
            pairs.setdefault(frozenset(each.names), []).append(each)
        for both in pairs.values():
            self._pair(both)
        for each in self._untrained(wanted):
            self._train(each)

    def _open(self, wanted: Sequence[Handing]) -> list[Handing]:
        there = self.store.present({to for each in wanted for to in each.fitted})
        return [each for each in wanted if not there >= each.fitted]

    def _untrained(self, wanted: Sequence[Handing]) -> list[Handing]:
        there = self.store.present({to for each in wanted for to in each.trained})
        return [each for each in wanted if not there >= each.trained]

    def _pair(self, directions: Sequence[Handing]) -> None:
        names = directions[0].names
        require_together(self.crew, names)
        self.crew.live(names)
        batches = [*batches_of(self.texts.fitted), *batches_of(self.texts.held)]
        restarts = self.run.cluster.restarts
        with ExitStack() as workers:
            folders = self._folders(directions, workers)
            some = [each for each in directions if each.target.name in folders]
            title = f"reading caches, {names[0]} and {names[1]}"
            with self.reporter.stage(title, len(batches)) as stage:

                def attempt(left: Sequence[Handing]) -> None:
                    stage.advance(-stage.done)
                    self._read(left, folders, batches, stage)

                undone = partial(self._open, some)
                gangs = (self.crew, *folders.values())
                persist(some, attempt, undone, restarts, gangs, self._lost)
        if others := directions[len(some) :]:
            self._pair(others)

    def _folders(self, directions: Sequence[Handing], workers: ExitStack) -> dict[str, Gang]:
        """One for each of these, or for as many of the first ones as there is room for now; by the
        target's name."""
        found: dict[str, Gang] = {}
        for each in directions:
            try:
                folder = self._folder(each, wait=_FURTHER if found else _FIRST)
            except InsufficientResources:
                if not found:
                    raise
                break
            workers.callback(folder.stop)
            found[each.target.name] = folder
        return found

    def _read(
        self,
        left: Sequence[Handing],
        folders: Mapping[str, Gang],
        batches: Sequence[tuple[str, ...]],
        stage: Stage,
    ) -> None:
        ends = {name for each in left for name in each.names}
        hosts = {name: each.host for name, each in self.crew.live(sorted(ends)).items()}
        fitted = len(batches_of(self.texts.fitted))

        def submit(numbered: tuple[int, tuple[str, ...]]) -> list[Ref]:
            number, texts = numbered
            read = {name: host.submit("read", texts) for name, host in hosts.items()}
            return [
                folders[each.target.name].submit(
                    "fold",
                    number,
                    number >= fitted,
                    read[each.source.name],
                    read[each.target.name],
                    hosts[each.target.name].submit("known", texts),
                )
                for each in left
            ]

        with closing(stream(enumerate(batches), submit, self.run.cluster.in_flight)) as folded:
            for _ in folded:
                stage.advance()
        fetch(
            [
                folders[each.target.name].submit(
                    "fit", len(batches), dict(each.maps), *self._small(each, hosts)
                )
                for each in left
            ]
        )

    def _small(self, each: Handing, hosts: Mapping[str, Gang]) -> list[object]:
        """Its size in bytes, and what matters to the target; nothing where none is wanted."""
        if self.section.small is None:
            return []
        some = self._cut(self.texts.fitted[: SAMPLED * BATCH_TEXTS])
        size = int(self.section.small * 2 * each.target.parameters)
        return [size, hosts[each.target.name].submit("importance", some)]

    def _cut(self, texts: Sequence[str]) -> list[Passage]:
        return [Passage.cut(text, self.section.cached) for text in texts]

    def _train(self, each: Handing) -> None:
        """Train the small map through its target, on the texts that it was fitted to."""
        names = each.names
        require_together(self.crew, names)
        fitted, held = self._cut(self.texts.fitted), self._cut(self.texts.held)
        base = np.frombuffer(self.store.get(each.maps[SMALL]), dtype=np.uint8)
        with self.reporter.stage(f"training a map of caches, {names[0]} into {names[1]}"):

            def attempt(_: Sequence[Handing]) -> None:
                source, target = (self.crew.live(names)[name].host for name in names)
                start = share(base)
                reads = [
                    source.submit("reduced", [of.cached for of in some], start)
                    for of_it in (fitted, held)
                    for some in batches_of(of_it)
                ]
                order = (start, fitted, held, CacheTraining(), *reads)
                (trained,) = fetch([target.submit("train_cache_map", *order)])
                self._keep(each.maps[TRAINED], trained)

            undone = partial(self._untrained, [each])
            restarts = self.run.cluster.restarts
            persist([each], attempt, undone, restarts, [self.crew], self._lost)

    def _keep(self, place: str, trained: TrainedCaches) -> None:
        report = {"held_out_kl": trained.held_out, "improved": trained.improved}
        self.store.put(report_address(place), json.dumps(report, sort_keys=True).encode())
        self.store.put(place, trained.map)

    def _folder(self, each: Handing, wait: float) -> Gang:
        return Gang.launch(
            CacheFolder,
            self.store,
            self.section.components,
            sampled(len(self.texts.fitted)),
            (each.source.head_width, each.target.head_width),
            name=f"caches-{each.source.name}-{each.target.name}",
            num_cpus=0,
            memory_bytes=cache_folder(self.section, *each.ends).total,
            restarts=self.run.cluster.restarts,
            timeout=wait,
        )

    def _lost(self) -> None:
        self.reporter.note("a worker was lost; the texts of its pair are read again")


def require_together(crew: Crew, names: Sequence[str]) -> None:
    """Make sure that models can be loaded at the same time.

    Raises:
        ConfigError: they cannot.
    """
    if not any(set(names) <= set(wave) for wave in crew.waves):
        raise ConfigError(
            f"kv_cache: {' and '.join(names)} do not fit into the cluster together, and a cache is "
            "handed over between two that are loaded: use a larger one, give each model less "
            "(cluster.cpus_per_model), or leave one out"
        )
