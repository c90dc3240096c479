"""A bounded sample of the rows behind moments, for what sums do not tell.

Shapes: n rows, ds source width, dt target width, k folds.
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
    """Rows that line up: x [n, ds] and y [n, dt], in float32."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        assert self.x.ndim == self.y.ndim == 2, f"{self.x.shape}, {self.y.shape}: no matrices"
        assert len(self.x) == len(self.y), f"{len(self.x)} rows do not line up with {len(self.y)}"

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Sample:
        return cls(x.float(), y.float())

    @classmethod
    def none(cls, ds: int, dt: int) -> Sample:
        return cls(torch.zeros(0, ds), torch.zeros(0, dt))

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Sample:
        """One after the other."""
        return cls(torch.cat([each.x for each in samples]), torch.cat([each.y for each in samples]))

    def __len__(self) -> int:
        return len(self.x)

    def swap(self) -> Sample:
        """The same rows with source and target exchanged."""
        return Sample(self.y, self.x)

    def thinned(self, most: int) -> Sample:
        """At most so many of the rows, evenly spaced."""
        if len(self) <= most:
            return self
        rows = torch.arange(most) * len(self) // max(most, 1)
        return Sample(self.x[rows], self.y[rows])

    def crossed(self, *seed: int) -> Sample:
        """Each source row beside the target row of another place, at random."""
        rows = np.random.default_rng(seed).permutation(len(self))
        return Sample(self.x, self.y[torch.from_numpy(rows)])


@dataclass(frozen=True, eq=False)
class FoldedRows:
    """Samples kept apart by the folds of the moments they are beside."""

    folds: tuple[Sample, ...]

    @classmethod
    def of_rows(
        cls, x: Tensor, y: Tensor, fold_ids: NDArray[np.integer] | Tensor, k: int
    ) -> FoldedRows:
        """Row i of x [n, ds] and y [n, dt] goes to fold fold_ids[i] in [0, k)."""
        ids = torch.as_tensor(fold_ids)
        return cls(tuple(Sample.of(x[ids == fold], y[ids == fold]) for fold in range(k)))
