"""A bounded sample of the rows behind moments, for what sums do not tell.

Shapes: n rows, ds source width, dt target width, e experts, k folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows that line up: x [n, ds] and y [n, dt], in float32.

    Where the model of a side is sparse, `routes` of it [n, e] are the weights that its router gave
    to the experts at the row.
    """

    x: Tensor
    y: Tensor
    x_routes: Tensor | None = None
    y_routes: Tensor | None = None

    def __post_init__(self) -> None:
        there = [each for each in vars(self).values() if each is not None]
        shapes = [tuple(each.shape) for each in there]
        assert all(each.ndim == 2 for each in there), f"{shapes}: no matrices"
        assert len({len(each) for each in there}) == 1, f"{shapes}: the rows do not line up"

    @classmethod
    def of(
        cls, x: Tensor, y: Tensor, x_routes: Tensor | None = None, y_routes: Tensor | None = None
    ) -> Sample:
        return cls(x.float(), y.float(), x_routes, y_routes)

    @classmethod
    def none(cls, ds: int, dt: int) -> Sample:
        return cls(torch.zeros(0, ds), torch.zeros(0, dt))

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Sample:
        """One after the other."""

        def stacked(routes: Sequence[Tensor | None]) -> Tensor | None:
            there = [each for each in routes if each is not None]
            return torch.cat(there) if there else None

        return cls(
            torch.cat([each.x for each in samples]),
            torch.cat([each.y for each in samples]),
            stacked([each.x_routes for each in samples]),
            stacked([each.y_routes for each in samples]),
        )

    def __len__(self) -> int:
        return len(self.x)

    def swap(self) -> Sample:
        """The same rows with source and target exchanged."""
        return Sample(self.y, self.x, self.y_routes, self.x_routes)

    def thinned(self, most: int) -> Sample:
        """At most so many of the rows, evenly spaced."""
        if len(self) <= most:
            return self
        rows = torch.arange(most) * len(self) // max(most, 1)
        return self.at(rows)

    def at(self, rows: Tensor) -> Sample:
        """Those of the rows."""
        return self._beside(rows, rows)

    def crossed(self, *seed: int) -> Sample:
        """Each source row beside the target row of another place, at random."""
        rows = np.random.default_rng(seed).permutation(len(self))
        return self._beside(torch.arange(len(self)), torch.from_numpy(rows))

    def _beside(self, rows_x: Tensor, rows_y: Tensor) -> Sample:
        def of(routes: Tensor | None, rows: Tensor) -> Tensor | None:
            return None if routes is None else routes[rows]

        return Sample(
            self.x[rows_x], self.y[rows_y], of(self.x_routes, rows_x), of(self.y_routes, rows_y)
        )


@dataclass(frozen=True, eq=False)
class FoldedRows:
    """Samples kept apart by the folds of the moments they are beside."""

    folds: tuple[Sample, ...]

    @classmethod
    def of_rows(
        cls, x: Tensor, y: Tensor, fold_ids: NDArray[np.integer] | Tensor, k: int
    ) -> FoldedRows:
        """Row i of x [n, ds] and y [n, dt] goes to fold fold_ids[i] in [0, k)."""
        return cls.of_sample(Sample.of(x, y), fold_ids, k)

    @classmethod
    def of_sample(
        cls, sample: Sample, fold_ids: NDArray[np.integer] | Tensor, k: int
    ) -> FoldedRows:
        """The same of the rows of a sample."""
        ids = torch.as_tensor(fold_ids)
        return cls(tuple(sample.at(torch.nonzero(ids == fold)[:, 0]) for fold in range(k)))
