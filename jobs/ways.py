"""The directions of one concept that are added to a target, and the ways to carry them there.

Shapes: d width.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from actors.cargo.steering import carry, random_directions
from actors.catalog import ModelFacts
from actors.folder import report_address
from alignment.maps import Linear, Map, map_from_bytes
from cluster.storage import Store
from jobs.extract import Vectors
from jobs.questions import Push
from jobs.work import Hop, Place, Work

DIRECT, SCALED = "direct", "scaled"  # without a fitted map; others are called as their fitters
TRAINED = "trained"  # through the target
HopKey = tuple[str, str, Place]


def key_of(hop: Hop) -> HopKey:
    """What tells a hop from all others of a run."""
    return hop.source, hop.target, hop.place


class Way(NamedTuple):
    """A map, and the model whose typical activation is the unit of length."""

    name: str
    map_address: str
    unit_of: str


def vector_files(directory: Path, carried_by: Map, vector: np.ndarray) -> Path:
    """What is registered of a vector that was carried: the map, and what is injected."""
    carried_by.save(directory)
    save_file({"vector": vector}, directory / "vector.safetensors")
    return directory


class Ways:
    """What can be pushed in the targets of a run, for one concept."""

    def __init__(
        self,
        concept: str,
        work: Work,
        models: Mapping[str, ModelFacts],
        vectors: Vectors,
        store: Store,
        trained: Mapping[HopKey, str] | None = None,
    ) -> None:
        self.concept, self.store = concept, store
        self._trained = trained or {}
        self._work, self._models, self._vectors = work, models, vectors
        # Of what was read from the store: it never changes there, and may be far away.
        self._pushes: dict[tuple[HopKey, Way, str], Push] = {}
        self._reports: dict[str, dict[str, Any]] = {}

    def of(self, hop: Hop) -> dict[str, Way]:
        """Every way to carry over a pair, simplest first.

        The vector as it is (`direct`), cut or padded to the target's width; the same at the
        target's length (`scaled`); by each fitted map; and by the trained one, where there is one.
        """
        without = (Way(DIRECT, hop.resizing, hop.source), Way(SCALED, hop.resizing, hop.target))
        fitted = (Way(name, to, hop.target) for name, to in hop.maps.items())
        ways = [*without, *fitted]
        if (to := self._trained.get(key_of(hop))) is not None:
            ways.append(Way(TRAINED, to, hop.target))
        return {way.name: way for way in ways}

    def best_fitted(self, hop: Hop) -> Way:
        """By the map with the best R² on held-out anchors: no cargo is looked at for that."""
        name = max(hop.maps, key=lambda name: self.report(hop.maps[name])["held_out_r2"])
        return self.of(hop)[name]

    def native(self, hop: Hop) -> Push:
        """The target's own vector."""
        return self._of_target(hop)[0]

    def relabelled(self, hop: Hop) -> list[Push]:
        """The target's vectors of the same texts with their sides drawn at random."""
        return self._of_target(hop)[1:]

    def carried(self, hop: Hop, way: Way, concept: str | None = None) -> Push:
        """The source's vector of the concept, or of another one."""
        concept = concept or self.concept
        asked = key_of(hop), way, concept
        if asked not in self._pushes:
            direction = self._through(hop, [way.map_address], concept)
            length = self.length(way.unit_of, hop.place)
            self._pushes[asked] = Push(hop.target_site, direction, length)
        return self._pushes[asked]

    def along(self, hops: Sequence[Hop], maps: Sequence[str]) -> Push:
        """The first source's vector of the concept, by one map after the other."""
        first, last = hops[0], hops[-1]
        direction = self._through(first, maps, self.concept)
        return Push(last.target_site, direction, self.length(last.target, last.place))

    def at_once(self, maps: Sequence[str]) -> Map | None:
        """One map that does what these do, one after the other; None where one of them bends."""
        found = [map_from_bytes(self.store.get(to)) for to in maps]
        if not all(isinstance(each, Linear) for each in found):
            return None
        return reduce(lambda first, second: first.then(second), found)

    def _through(self, hop: Hop, maps: Sequence[str], concept: str) -> np.ndarray:
        """The vector of a hop's source, by one map after the other."""
        direction = self._vectors[hop.source, hop.place, concept][0]
        for to in maps:
            direction = carry(direction, map_from_bytes(self.store.get(to)))
        return direction

    def together(self, carried: Sequence[Push], hop: Hop) -> Push:
        """The mean of what several sources carry to one site, each at the same length."""
        units = [each.direction / np.linalg.norm(each.direction) for each in carried]
        length = self.length(hop.target, hop.place)
        return Push(hop.target_site, np.mean(units, axis=0), length)

    def random(self, hop: Hop, count: int, seed: int) -> list[Push]:
        """Directions drawn evenly, the same ones whatever the source."""
        drawn = random_directions(self._models[hop.target].width, count, seed)
        unit = self.length(hop.target, hop.place)
        return [Push(hop.target_site, direction, unit) for direction in drawn]

    def report(self, map_address: str) -> dict[str, Any]:
        """What was written of a map when it was fitted."""
        if map_address not in self._reports:
            self._reports[map_address] = json.loads(self.store.get(report_address(map_address)))
        return self._reports[map_address]

    def _of_target(self, hop: Hop) -> list[Push]:
        unit = self.length(hop.target, hop.place)
        directions = self._vectors[hop.target, hop.place, self.concept]
        return [Push(hop.target_site, direction, unit) for direction in directions]

    def length(self, model: str, place: Place) -> float:
        """Of a typical activation of a model at a place: the unit of strength."""
        return self._lengths[model, place]

    @cached_property
    def _lengths(self) -> dict[tuple[str, Place], float]:
        first = {(hop.target, hop.place): hop.resizing for hop in self._work.hops}
        return {at: self.report(to)["target_spread"] for at, to in first.items()}
