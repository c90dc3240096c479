"""Additive second-moment statistics of rows that line up in two models.

Everything a linear fitter needs (least squares for every λ, Procrustes, held-out R²) comes out of
these sums with no second pass over the activations, and streams, shards and restarts are `+`.

Shapes: n rows, ds source width, dt target width, k folds. Sums are float64.

Precision: rows are shifted by their own mean, multiplied in the precision they come in, and the
shift is put back in float64. For float32 rows each entry of a second moment is then within
1e-6 * sqrt(S_ii * S_jj) of its exact value, S being the *centred* sums of squares: a feature
whose mean is a thousand times its spread loses nothing to cancellation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Rows per product: float32 sums stay short, longer ones are carried on in float64.
BLOCK_ROWS = 2048


def cross_moment(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ w_i x_i y_iᵀ as [ds, dt] float64, for x [n, ds] and y [n, dt], weights [n] or all ones."""
    assert x.ndim == y.ndim == 2, f"rows must be matrices, not {x.shape} and {y.shape}"
    assert len(x) == len(y), f"{len(x)} source rows do not line up with {len(y)} target rows"
    starts = range(0, max(len(x), 1), BLOCK_ROWS)
    blocks = [slice(start, start + BLOCK_ROWS) for start in starts]
    products = (_block_moment(x[b], y[b], None if weights is None else weights[b]) for b in blocks)
    return reduce(Tensor.add_, products)


def _block_moment(x: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    if not len(x):
        return torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    shift_x, shift_y = x.mean(0), y.mean(0)
    near_x, near_y = x - shift_x, y - shift_y
    if weights is not None:
        near_x = near_x * weights.to(x.dtype)[:, None]
    product = (near_x.mT @ near_y).double()
    count = len(x) if weights is None else weights.double().sum()
    # From the rows themselves: what rounding took from near_x must not come back times shift_y.
    rest_x = _sum(x, weights) - count * shift_x.double()
    sum_y = _sum(y, weights)
    # Σ w (x - a)(y - b)ᵀ + a (Σ w y)ᵀ + (Σ w (x - a)) bᵀ = Σ w x yᵀ
    left = torch.stack((shift_x.double(), rest_x), dim=1)
    return product.addmm_(left, torch.stack((sum_y, shift_y.double())))


def _sum(rows: Tensor, weights: Tensor | None) -> Tensor:
    return rows.sum(0, dtype=torch.float64) if weights is None else weights.double() @ rows.double()


@dataclass(frozen=True, eq=False)
class Sums(ABC):
    """Sums over rows: count Σw, sum_x [ds], sum_y [dt], xx [ds, ds], xy [ds, dt], and yy.

    How much is kept of the squares of the target rows is up to the kind.
    """

    count: float
    sum_x: Tensor
    sum_y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def about(self, mean_x: Tensor, mean_y: Tensor) -> Self:
        """The same rows with mean_x [ds] and mean_y [dt] subtracted from each."""
        sum_x = self.sum_x - self.count * mean_x
        sum_y = self.sum_y - self.count * mean_y
        return type(self)(
            self.count,
            sum_x,
            sum_y,
            self.xx - torch.outer(mean_x, self.sum_x) - torch.outer(sum_x, mean_x),
            self.xy - torch.outer(mean_x, self.sum_y) - torch.outer(sum_x, mean_y),
            self.yy - self._squares(mean_y, self.sum_y) - self._squares(sum_y, mean_y),
        )

    def with_cross(self, xy: Tensor) -> Self:
        """The same margins with another cross moment [ds, dt], as of rows paired otherwise."""
        assert xy.shape == self.xy.shape, f"cross moment {xy.shape}, not {self.xy.shape}"
        return replace(self, xy=xy.double())

    @property
    def mean_x(self) -> Tensor:
        return self.sum_x / self.count

    @property
    def mean_y(self) -> Tensor:
        return self.sum_y / self.count

    @property
    def cov_x(self) -> Tensor:
        """Covariance [ds, ds] of the source rows, divided by the count."""
        return self.xx / self.count - torch.outer(self.mean_x, self.mean_x)

    @property
    def cov_xy(self) -> Tensor:
        """Cross-covariance [ds, dt], divided by the count."""
        return self.xy / self.count - torch.outer(self.mean_x, self.mean_y)

    @staticmethod
    @abstractmethod
    def _squares(one: Tensor, other: Tensor) -> Tensor:
        """Of two vectors [dt], what of their products is kept in yy."""


@dataclass(frozen=True, eq=False)
class Moments(Sums):
    """Sums over rows, with all of yy [dt, dt]."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Moments:
        """Moments of x [n, ds] and y [n, dt] (float32 or float64), rows weighted by weights [n]."""
        return cls(
            count=float(len(x)) if weights is None else float(weights.double().sum()),
            sum_x=_sum(x, weights),
            sum_y=_sum(y, weights),
            xx=cross_moment(x, x, weights),
            xy=cross_moment(x, y, weights),
            yy=cross_moment(y, y, weights),
        )

    @classmethod
    def zero(cls, ds: int, dt: int) -> Moments:
        return cls.of(torch.zeros(0, ds), torch.zeros(0, dt))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def swap(self) -> Moments:
        """The same rows with source and target exchanged."""
        return Moments(self.count, self.sum_y, self.sum_x, self.yy, self.xy.mT, self.xx)

    def through(self, x: Tensor, y: Tensor) -> Moments:
        """The same rows with x [.., ds] @ each source row and y [.., dt] @ each target row."""
        xx, xy, yy = x @ self.xx @ x.mT, x @ self.xy @ y.mT, y @ self.yy @ y.mT
        return Moments(self.count, x @ self.sum_x, y @ self.sum_y, xx, xy, yy)

    def less(self, weight: Tensor) -> Moments:
        """The same rows with what weight [dt, ds] makes of x taken from y."""
        explained = weight @ self.xy
        return Moments(
            self.count,
            self.sum_x,
            self.sum_y - weight @ self.sum_x,
            self.xx,
            self.xy - self.xx @ weight.mT,
            self.yy - explained - explained.mT + weight @ self.xx @ weight.mT,
        )

    def of_features(self, x: slice, y: slice) -> Moments:
        """The same rows with some of the features only."""
        xx, xy, yy = self.xx[x, x], self.xy[x, y], self.yy[y, y]
        return Moments(self.count, self.sum_x[x], self.sum_y[y], xx, xy, yy)

    @property
    def cov_y(self) -> Tensor:
        """Covariance [dt, dt] of the target rows, divided by the count."""
        return self.yy / self.count - torch.outer(self.mean_y, self.mean_y)

    @staticmethod
    def _squares(one: Tensor, other: Tensor) -> Tensor:
        return torch.outer(one, other)

    def is_finite(self) -> bool:
        """False when any row held NaN or infinity, or the squares overflowed."""
        return all(bool(t.isfinite().all()) for t in self.tensors().values())

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Every field as a tensor, for storage; `from_tensors` is the inverse."""
        return {
            prefix + f.name: torch.as_tensor(getattr(self, f.name), dtype=torch.float64)
            for f in fields(self)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Moments:
        found = {f.name: tensors[prefix + f.name] for f in fields(cls)}
        return cls(float(found.pop("count")), **found)


@dataclass(frozen=True, eq=False)
class FoldedMoments:
    """Moments kept apart by cross-validation fold; each row is in exactly one fold."""

    folds: tuple[Moments, ...]

    @classmethod
    def of_rows(
        cls, x: Tensor, y: Tensor, fold_ids: NDArray[np.integer] | Tensor, k: int
    ) -> FoldedMoments:
        """Moments of x [n, ds] and y [n, dt], row i going to fold fold_ids[i] in [0, k).

        The cost per call is nearly that of the products: hand over as many rows at once as fit.
        """
        ids = torch.as_tensor(fold_ids)
        assert len(ids) == len(x), f"{len(ids)} fold ids for {len(x)} rows"
        assert not len(ids) or 0 <= int(ids.min()) <= int(ids.max()) < k, f"fold ids outside 0..{k}"
        chosen = [(ids == fold).nonzero().squeeze(1) for fold in range(k)]
        return cls(tuple(Moments.of(x[rows], y[rows]) for rows in chosen))

    def __add__(self, other: FoldedMoments) -> FoldedMoments:
        pairs = zip(self.folds, other.folds, strict=True)
        return FoldedMoments(tuple(mine + theirs for mine, theirs in pairs))

    def total(self) -> Moments:
        return reduce(add, self.folds)

    def without(self, fold: int) -> Moments:
        """Moments of every row outside one fold."""
        return reduce(add, (m for i, m in enumerate(self.folds) if i != fold))

    def swap(self) -> FoldedMoments:
        return FoldedMoments(tuple(fold.swap() for fold in self.folds))
