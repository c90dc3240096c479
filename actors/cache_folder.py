"""Folds what two models cache of the same texts into sums, and fits maps of caches from these.

Shapes: n rows, d width of a site, e width of what the target knows of a token, D components of all
inputs together, T width of all outputs together.

Unlike those of single sites these sums are large (a gigabyte for all layers of two small models),
so they stay in the worker: if it dies, the texts are read again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.caching import Read
from actors.cargo.kv_cache import OWN, map_inputs, own_tokens
from actors.folder import ShardLost, report_address
from alignment.cache_map import CacheMoments, Reduction, fit_caches
from alignment.moments import cross_moment
from cluster.storage import Store

BLOCK_ROWS = 4096  # that are multiplied at once: a product costs nearly the same for fewer
BITS = 16  # of a number of a stored map

# The maps that are fitted: of all inputs, of what the target knows of its tokens alone, and of all
# inputs beside the cells of other texts.
CARRIED, TOKENS, SHUFFLED = "carried", "own tokens alone", "shuffled rows"
MAPS = (CARRIED, TOKENS, SHUFFLED)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of inputs [n, d] by name, and of the target's cells [n, d] by site."""

    inputs: dict[str, Tensor]
    cells: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of rows as they are, and of the same with each input beside another text's cells."""

    plain: CacheMoments
    shuffled: CacheMoments

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.plain + other.plain, self.shuffled + other.shuffled)


class CacheFolder:
    """A worker that holds no model, for one direction between two.

    Batches of texts come in order. From the first ones it learns how inputs are reduced.
    """

    def __init__(self, store: Store, components: int, sampled: int) -> None:
        """`components` are kept of the keys, and of the values, of every layer; they are found on
        the first `sampled` batches."""
        self._store, self._components, self._sampled = store, components, sampled
        self._begin()

    def _begin(self) -> None:
        self._next = 0
        self._kept: list[_Rows] = []
        self._reduced: dict[str, Reduction] = {}
        self._open: dict[bool, list[tuple[Tensor, Tensor]]] = {False: [], True: []}
        self._sums: dict[bool, _Sums] = {}
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
        for rows in self._kept:
            self._add(rows, held=False)
        self._kept.clear()

    def _add(self, rows: _Rows, held: bool) -> None:
        x = torch.cat([of(rows.inputs[name]) for name, of in self._reduced.items()], 1)
        block = self._open[held]
        block.append((x, torch.cat(list(rows.cells.values()), 1)))
        if sum(len(some) for some, _ in block) >= BLOCK_ROWS:
            self._close(held)

    def _close(self, held: bool) -> None:
        if not (block := self._open[held]):
            return
        x, y = (torch.cat(side) for side in zip(*block, strict=True))
        plain = CacheMoments.of(x, y)
        # Half a block away the rows are hardly ever of the same text.
        of_others = plain.with_cross(cross_moment(x, y.roll(len(y) // 2, 0)))
        found = _Sums(plain, of_others)
        self._sums[held] = self._sums[held] + found if held in self._sums else found
        block.clear()

    def fit(self, batches: int, to: dict[str, str]) -> None:
        """Fit the maps, of which `to` has the address by name, to so many batches; with reports.

        Raises:
            ShardLost: they are not all there.
            FitError: rows that are not finite.
        """
        if self._next != batches:
            raise ShardLost(f"{self._next} of {batches} batches are there")
        for held in (False, True):
            self._close(held)
        everything = sum(of.width for of in self._reduced.values())
        own = torch.arange(everything - self._reduced[OWN].width, everything)
        assert next(reversed(self._reduced)) == OWN, "what the target knows comes last"
        for name, place in to.items():
            training, validation = (
                self._sums[held].shuffled if name == SHUFFLED else self._sums[held].plain
                for held in (False, True)
            )
            reduced = self._reduced
            if name == TOKENS:
                reduced = {OWN: reduced[OWN]}
                training, validation = training.of_inputs(own), validation.of_inputs(own)
            fitted = fit_caches(training, validation, reduced, self._writes)
            report = {
                "held_out_r2": fitted.held_out_r2,
                "lambdas": fitted.lambdas,
                "rows": training.count + validation.count,
            }
            self._store.put(report_address(place), json.dumps(report, sort_keys=True).encode())
            self._store.put(place, fitted.map.to_bytes(BITS))


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
