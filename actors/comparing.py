"""Compares all layers of models with each other, over rows that are kept whole until then."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from actors.exchange import Activations, ShardLost, shared_rows
from alignment.similarity import compare_all
from cluster.storage import Store

TOGETHER = 4  # models compared at once, of which rows and Gram matrices are there
_Side = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """All layers of one model beside all layers of another, to be written at `to`."""

    source: str
    target: str
    source_sites: tuple[str, ...]
    target_sites: tuple[str, ...]
    rows: int
    neighbours: int
    permutations: int
    seed: int
    to: str

    @property
    def sides(self) -> tuple[_Side, _Side]:
        """Each model with its sites."""
        return (self.source, self.source_sites), (self.target, self.target_sites)

    @property
    def settings(self) -> tuple[int, ...]:
        """All but what is compared."""
        return self.rows, self.neighbours, self.permutations, self.seed


@dataclass(frozen=True, eq=False)
class _Alike:
    """Comparisons over the same rows with the same settings, `by` which they are known; and where
    these rows are in each kept batch, by model."""

    by: tuple[bytes, tuple[int, ...]]
    comparisons: list[Comparison] = field(default_factory=list)
    at: dict[_Side, Sequence[np.ndarray]] = field(default_factory=dict)

    def takes(self, comparison: Comparison, by: tuple[bytes, tuple[int, ...]]) -> bool:
        return self.by == by and len({*self.at, *comparison.sides}) <= TOGETHER


class KeptBatches:
    """A bounded number of batches of several models, and what layers are alike over them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: list[dict[str, Activations]] = []

    def keep(self, index: int, models: Mapping[str, Activations]) -> None:
        """Keep batch `index` whole, to be compared; batch 0 forgets what was kept before.

        Raises ShardLost where earlier ones are gone.
        """
        if index == 0:
            self._kept.clear()
        if index != len(self._kept):
            raise ShardLost(f"batch {index} came after {len(self._kept)} others")
        self._kept.append({name: _copied(each) for name, each in models.items()})

    def compare(self, comparisons: Sequence[Comparison]) -> None:
        """Compare every layer pair of models over the rows kept, and write each result."""
        groups: list[_Alike] = []
        for each in comparisons:
            both = [(models[each.source], models[each.target]) for models in self._kept]
            shared = [shared_rows(source, target) for source, target in both]
            rows = [source.rows[at] for (source, _), (at, _) in zip(both, shared, strict=True)]
            alike = _Alike((np.concatenate(rows)[: each.rows].tobytes(), each.settings))
            group = next((of for of in groups if of.takes(each, alike.by)), alike)
            if group is alike:
                groups.append(alike)
            group.comparisons.append(each)
            for side, at in zip(each.sides, zip(*shared, strict=True), strict=True):
                group.at[side] = at
        for group in groups:
            self._compare(group)

    def _compare(self, group: _Alike) -> None:
        first, *_ = group.comparisons

        def layers(side: _Side) -> Iterator[Tensor]:
            model, sites = side
            for site in sites:
                each = zip(self._kept, group.at[side], strict=True)
                rows = [models[model].points[site][at] for models, at in each]
                yield torch.from_numpy(np.concatenate(rows)[: first.rows])

        sides, pairs = list(group.at), [each.sides for each in group.comparisons]
        found = compare_all(
            [layers(side) for side in sides],
            [(sides.index(one), sides.index(other)) for one, other in pairs],
            k=first.neighbours,
            permutations=first.permutations,
            seed=first.seed,
        )
        for each, similarity in zip(group.comparisons, found, strict=True):
            self._store.put(each.to, similarity.to_bytes())


def _copied(activations: Activations) -> Activations:
    """Its own memory: what arrives is a view into the object store, and would keep it full."""
    points = {site: points.copy() for site, points in activations.points.items()}
    return Activations(
        activations.model,
        activations.batch,
        activations.rows.copy(),
        points,
    )
