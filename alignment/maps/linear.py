"""Maps with one derivative everywhere.

Shapes: n rows, ds source width, dt target width, r rank.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from alignment.maps.base import Map, require_meeting, unchained


class Linear(Map):
    """A bias [dt], and a matrix [dt, ds] that is kept as the product of its factors."""

    bias: Tensor

    @property
    @abstractmethod
    def factors(self) -> tuple[Tensor, ...]:
        """Matrices whose product, in this order, is the matrix."""

    @property
    def matrix(self) -> Tensor:
        """The matrix [dt, ds], multiplied out in float64."""
        return _product(self.factors)

    @property
    def source_width(self) -> int:
        return self.factors[-1].shape[1]

    @property
    def target_width(self) -> int:
        return self.factors[0].shape[0]

    def transform(self, points: Tensor) -> Tensor:
        for factor in self.factors[:0:-1]:
            points = functional.linear(points, factor)
        return functional.linear(points, self.factors[0], self.bias)

    def pushforward(self, directions: Tensor) -> Tensor:
        return reduce(functional.linear, reversed(self.factors), directions)

    def pullback(self, covectors: Tensor) -> Tensor:
        return reduce(torch.matmul, self.factors, covectors)

    def then(self, other: Map) -> Linear:
        """Composed in float64, so that a chain of maps is rounded once a link.

        LowRank, at the smallest rank of a link, where either is LowRank; else Affine.
        """
        require_meeting(self, other)
        if not isinstance(other, Linear):
            raise unchained(self, other)
        links, meeting = (*other.factors, *self.factors), len(other.factors)
        bias = (_product((*other.factors, self.bias)) + other.bias.double()).float()
        cuts = [at for at in range(1, len(links)) if at != meeting]
        if not cuts:
            return Affine(_product(links).float(), bias)
        cut = min(cuts, key=lambda at: len(links[at]))
        return LowRank(_product(links[:cut]).float(), _product(links[cut:]).float(), bias)


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """y = x @ weight.T + bias, with weight [dt, ds] and bias [dt] in float32."""

    kind: ClassVar[str] = "affine"
    formula: ClassVar[str] = "y = x @ weight.T + bias"

    weight: Tensor
    bias: Tensor  # pyrefly: ignore[bad-override]  (frozen here, so only read)

    def __post_init__(self) -> None:
        assert self.weight.ndim == 2, f"weight {self.weight.shape} is no matrix"
        assert self.bias.shape == self.weight.shape[:1], f"bias {self.bias.shape} does not fit"
        assert self.weight.dtype == self.bias.dtype == torch.float32, "maps are kept in float32"

    @property
    def factors(self) -> tuple[Tensor, ...]:
        return (self.weight,)

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}


@dataclass(frozen=True, eq=False)
class LowRank(Linear):
    """y = (x @ right.T) @ left.T + bias: left [dt, r], right [r, ds], bias [dt] in float32."""

    kind: ClassVar[str] = "low_rank"
    formula: ClassVar[str] = "y = (x @ right.T) @ left.T + bias"

    left: Tensor
    right: Tensor
    bias: Tensor  # pyrefly: ignore[bad-override]  (frozen here, so only read)

    def __post_init__(self) -> None:
        shapes = f"left {self.left.shape}, right {self.right.shape}, bias {self.bias.shape}"
        assert self.left.ndim == self.right.ndim == 2, f"{shapes}: no two matrices"
        assert self.left.shape[1] == self.right.shape[0], f"{shapes}: the ranks differ"
        assert self.bias.shape == self.left.shape[:1], f"{shapes}: the bias does not fit"
        assert all(t.dtype == torch.float32 for t in vars(self).values()), "kept in float32"

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def factors(self) -> tuple[Tensor, ...]:
        return (self.left, self.right)

    def record(self) -> dict[str, str | int]:
        return {**super().record(), "rank": self.rank}

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in vars(self).items()}


def _product(factors: Sequence[Tensor]) -> Tensor:
    """In float64, from the right: the last may be a vector."""
    return reduce(lambda right, left: left @ right, [f.double() for f in reversed(factors)])
