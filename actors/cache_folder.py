"""Folds what two models cache of the same texts into sums, and fits maps of caches from these.

Shapes: n rows, d width of a site, e width of what the target knows of a token, D components of all
inputs together, T width of all outputs together.

Unlike those of single sites these sums are large (a gigabyte for all layers of two small models),
so they stay in the worker: if it dies, the texts are read again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.cached_text import OWN, Read, map_inputs, own_tokens
from actors.exchange import ShardLost
from actors.folder import report_address
from actors.site_names import Site
from alignment.cache_fit import NEAR_LAMBDAS, Components, Fit, FittedCaches, fit_caches, nearer
from alignment.cache_heads import fit_heads
from alignment.cache_map import Bits, CacheMap, CacheMoments, Reduction
from alignment.layers import depth_pairing
from alignment.moments import cross_moment
from cluster.storage import Store

BLOCK_ROWS = 4096  # that are multiplied at once: a product costs nearly the same for fewer
BITS: Bits = 16  # of a number of a stored map
FORMAT = 3  # of maps and reports: one up where the same texts come to others

# The maps that are fitted: of all inputs, of what the target knows of its tokens alone, and of all
# inputs beside the cells of other texts.
CARRIED, TOKENS, SHUFFLED = "carried", "own tokens alone", "shuffled rows"
MAPS = (CARRIED, TOKENS, SHUFFLED)
SMALL = "small"  # of all inputs, within so many bytes, where one is wanted
SMALL_BITS: Bits = 4

LEARNED = "learned"  # how heads are told out, beside the schemes of `alignment.cache_heads`


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of inputs [n, d] by name, and of the target's cells [n, d] by site."""

    inputs: dict[str, Tensor]
    cells: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of all inputs and all cells; and, by site of the target, of one layer's cells and these."""

    every: CacheMoments
    near: dict[str, CacheMoments]

    @classmethod
    def of(cls, x: Tensor, y: Tensor, near: dict[str, tuple[Tensor, Tensor]]) -> "_Sums":
        return cls(
            CacheMoments.of(x, y), {site: CacheMoments.of(*both) for site, both in near.items()}
        )

    def shuffled(self, x: Tensor, y: Tensor, near: dict[str, tuple[Tensor, Tensor]]) -> "_Sums":
        """With inputs beside cells of half a block away, hardly ever of the same text."""

        def crossed(of: CacheMoments, one: Tensor, other: Tensor) -> CacheMoments:
            return of.with_cross(cross_moment(one, other.roll(len(other) // 2, 0)))

        return _Sums(
            crossed(self.every, x, y),
            {site: crossed(self.near[site], *both) for site, both in near.items()},
        )

    def __add__(self, other: "_Sums") -> "_Sums":
        near = {site: of + other.near[site] for site, of in self.near.items()}
        return _Sums(self.every + other.every, near)


class CacheFolder:
    """A worker that holds no model, for one direction between two.

    Batches of texts come in order. From the first ones it learns how inputs are reduced.
    """

    def __init__(
        self, store: Store, components: int, sampled: int, head_widths: tuple[int, int]
    ) -> None:
        """`components` are kept of the keys, and of the values, of every layer; they are found on
        the first `sampled` batches. `head_widths` are those of the source and the target."""
        self._store, self._components, self._sampled = store, components, sampled
        self._head_widths = head_widths
        self._begin()

    def _begin(self) -> None:
        self._next = 0
        self._kept: list[_Rows] = []
        self._reduced: dict[str, Reduction] = {}
        self._whole: dict[str, Reduction] = {}
        self._layers: dict[str, str] = {}
        self._open: dict[bool, list[_Rows]] = {False: [], True: []}
        self._sums: dict[tuple[bool, bool], _Sums] = {}
        self._writes: dict[str, int] = {}

    def fold(
        self,
        index: int,
        held: bool,
        source: Sequence[Read],
        target: Sequence[Read],
        known: Sequence[np.ndarray],
    ) -> int:
        """Add batch `index`, for fitting or to choose λ on (`held`). Returns its rows.

        Batch 0 begins anew. `known` are what the target knows of the tokens of each text [t, e].

        Raises:
            ShardLost: batches before it are gone.
        """
        if index == 0:
            self._begin()
        if index != self._next:
            raise ShardLost(f"batch {index} came after {self._next} others")
        assert not held or index >= self._sampled, "components are found on rows to fit"
        self._next += 1
        rows = _joined([_rows(*of) for of in zip(source, target, known, strict=True)])
        if index < self._sampled:
            self._kept.append(rows)
            if len(self._kept) == self._sampled:
                self._settle()
        else:
            self._add(rows, held)
        return len(rows.inputs[OWN])

    def _settle(self) -> None:
        sample = _joined(self._kept)
        self._writes = {site: of.shape[1] for site, of in sample.cells.items()}
        self._reduced = {
            name: Reduction.of(of, None if name == OWN else self._components)
            for name, of in sample.inputs.items()
        }
        # One layer for each of the target's, at the same depth, with all that it holds.
        self._layers = _by_depth(sample.inputs, self._writes)
        self._whole = {site: Reduction.of(sample.inputs[site]) for site in self._layers.values()}
        for rows in self._kept:
            self._add(rows, held=False)
        self._kept.clear()

    def _add(self, rows: _Rows, held: bool) -> None:
        block = self._open[held]
        block.append(rows)
        if sum(len(some.inputs[OWN]) for some in block) >= BLOCK_ROWS:
            self._close(held)

    def _close(self, held: bool) -> None:
        if not (block := self._open[held]):
            return
        rows = _joined(block)
        x = torch.cat([of(rows.inputs[name]) for name, of in self._reduced.items()], 1)
        y = torch.cat(list(rows.cells.values()), 1)
        near = {
            site: (self._whole[layer](rows.inputs[layer]), rows.cells[site])
            for site, layer in self._layers.items()
        }
        plain = _Sums.of(x, y, near)
        for shuffled, found in ((False, plain), (True, plain.shuffled(x, y, near))):
            key = held, shuffled
            self._sums[key] = self._sums[key] + found if key in self._sums else found
        block.clear()

    def fit(
        self,
        batches: int,
        to: Mapping[str, str],
        size: int | None = None,
        importance: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Fit the maps, of which `to` has the address by name, to so many batches; with reports.

        With a `size` also the small one, of at most so many bytes; `importance` says what each
        number of a cell matters to the target, [d] by site (`caching.importance`).

        Raises:
            ShardLost: they are not all there.
            FitError: rows that are not finite, or no map is so small.
        """
        if self._next != batches:
            raise ShardLost(f"{self._next} of {batches} batches are there")
        for held in (False, True):
            self._close(held)
        every = self._every(shuffled=False)
        self._keep(to[CARRIED], *self._carried(every, shuffled=False))
        if size is not None and importance is not None:
            matters = {site: torch.from_numpy(of) for site, of in importance.items()}
            small = every.within(size, matters)
            self._keep(to[SMALL], small, self._report({}, {}, []), SMALL_BITS)
        self._keep(to[TOKENS], *self._tokens())
        every = self._every(shuffled=True, components=every.components)
        self._keep(to[SHUFFLED], *self._carried(every, shuffled=True))

    def _keep(self, place: str, made: CacheMap, report: dict[str, Any], bits: Bits = BITS) -> None:
        self._store.put(report_address(place), json.dumps(report, sort_keys=True).encode())
        self._store.put(place, made.to_bytes(bits))

    def _every(
        self, *, shuffled: bool, components: tuple[Components, Components] | None = None
    ) -> FittedCaches:
        """What is fitted to every site from all there is."""
        training, held = (self._sums[of, shuffled].every for of in (False, True))
        return fit_caches(training, held, self._reduced, self._writes, components=components)

    def _carried(self, every: Fit, *, shuffled: bool) -> tuple[CacheMap, dict[str, Any]]:
        """The map that reads all there is, or one layer where that does better, and its report."""
        training, held = (self._sums[of, shuffled] for of in (False, True))
        near = {site: self._near(site, training, held) for site in self._layers}
        best = {
            site: max(of.values(), key=lambda each, site=site: each.held_out_r2[site])
            for site, of in near.items()
        }
        made, r2 = nearer(every, best)
        lambdas = dict(every.lambdas)
        for site in made.near:
            del lambdas[site]
            lambdas |= best[site].lambdas
        heads = {
            scheme: float(np.mean([of[scheme].held_out_r2[site] for site, of in near.items()]))
            for scheme in set.intersection(*map(set, near.values()))
        }
        return made, self._report(r2, lambdas, list(made.near)) | {"heads_r2": heads}

    def _near(self, site: str, training: _Sums, held: _Sums) -> dict[str, Fit]:
        """What is fitted to a site from the one layer at its depth, by how heads are told out."""
        layer = self._layers[site]
        sums, reduced = (training.near[site], held.near[site]), self._whole[layer]
        width = {site: self._writes[site]}
        learned = fit_caches(*sums, {layer: reduced}, width, NEAR_LAMBDAS)
        return {LEARNED: learned, **fit_heads(*sums, (layer, reduced), site, self._head_widths)}

    def _tokens(self) -> tuple[CacheMap, dict[str, Any]]:
        """The map that reads nothing of the source, and its report."""
        everything = sum(of.width for of in self._reduced.values())
        own = torch.arange(everything - self._reduced[OWN].width, everything)
        assert next(reversed(self._reduced)) == OWN, "what the target knows comes last"
        training, held = (self._sums[of, False].every.of_inputs(own) for of in (False, True))
        fitted = fit_caches(training, held, {OWN: self._reduced[OWN]}, self._writes)
        return fitted.map, self._report(fitted.held_out_r2, fitted.lambdas, [])

    def _report(
        self, r2: dict[str, float], lambdas: dict[str, float], near: list[str]
    ) -> dict[str, Any]:
        rows = sum(self._sums[of, False].every.count for of in (False, True))
        return {"held_out_r2": r2, "lambdas": lambdas, "from_one_layer": near, "rows": rows}


def _by_depth(inputs: Iterable[str], writes: Iterable[str]) -> dict[str, str]:
    """For each site of the target that of the source at the same depth, of the same kind."""
    sources = [Site.parse(name) for name in inputs if name != OWN]
    targets = [Site.parse(site) for site in writes]
    pairing = depth_pairing(*(1 + max(site.layer for site in of) for of in (sources, targets)))
    return {str(site): str(Site(site.kind, pairing[site.layer])) for site in targets}


def _rows(source: Read, target: Read, known: np.ndarray) -> _Rows:
    """Of the tokens that are carried: all but those that the target reads itself."""
    at = own_tokens(source.spans, target.spans)
    inputs = map_inputs(source, target.spans, known)
    return _Rows(
        *(
            {n: torch.from_numpy(of[at:]) for n, of in side.items()}
            for side in (inputs, target.cells)
        )
    )


def _joined(rows: Sequence[_Rows]) -> _Rows:
    inputs = {name: torch.cat([each.inputs[name] for each in rows]) for name in rows[0].inputs}
    cells = {site: torch.cat([each.cells[site] for each in rows]) for site in rows[0].cells}
    return _Rows(inputs, cells)
