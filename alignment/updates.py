"""Changes of matrices, of low rank: what a LoRA adapter adds to each layer that it changes.

Shapes: o and i what a matrix returns and reads, r rank, n rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.main_directions import main_directions

_SIDES = ("up", "down")


@dataclass(frozen=True, eq=False)
class Update:
    """up [o, r] @ down [r, i], in float32: what is added to a matrix [o, i] (arXiv 2106.09685)."""

    up: Tensor
    down: Tensor

    def __post_init__(self) -> None:
        shapes = f"up {tuple(self.up.shape)}, down {tuple(self.down.shape)}"
        assert self.up.ndim == self.down.ndim == 2, f"{shapes}: no two matrices"
        assert self.up.shape[1] == self.down.shape[0], f"{shapes}: the ranks differ"
        assert self.up.dtype == self.down.dtype == torch.float32, "kept in float32"

    @classmethod
    def of(cls, matrix: Tensor, rank: int) -> Update:
        """The nearest one to a matrix [o, i] of at most this rank (Eckart and Young 1936)."""
        sizes, left, right = main_directions(matrix, rank)
        root = sizes.sqrt()
        return cls((left * root).float(), (right * root).mT.float().contiguous())

    @classmethod
    def regressed(cls, reads: Tensor, wanted: Tensor, rank: int, strength: float) -> Update:
        """The one of at most this rank by which what a matrix makes of rows [n, i] changes as is
        wanted [n, o], as nearly as can be: reduced-rank ridge regression (Izenman 1975; Mukherjee,
        Zhu 2011), whose penalty is `strength` times the mean of what the rows add up to."""
        reads, wanted = reads.double(), wanted.double()
        squares = reads.mT @ reads
        squares.diagonal().add_(strength * squares.diagonal().mean())
        root = torch.linalg.cholesky(squares)
        fitted = torch.linalg.solve_triangular(root, reads.mT @ wanted, upper=False)
        sizes, left, right = main_directions(fitted, rank)
        down = torch.linalg.solve_triangular(root.mT, left * sizes, upper=True)
        return cls(right.float(), down.mT.float().contiguous())

    @classmethod
    def total(cls, updates: Sequence[Update]) -> Update:
        """Their sum, exactly: the rank is the sum of the ranks."""
        ups, downs = zip(*((each.up, each.down) for each in updates), strict=True)
        return cls(torch.cat(ups, 1), torch.cat(downs))

    @property
    def rank(self) -> int:
        """How many columns `up` has."""
        return len(self.down)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix that it changes, (o, i)."""
        return len(self.up), self.down.shape[1]

    @property
    def matrix(self) -> Tensor:
        """The change itself, float32 [o, i]."""
        return self.up @ self.down

    @property
    def norm(self) -> float:
        """Frobenius norm of the change, which is not made for it."""
        both = (self.up.mT @ self.up).double() * (self.down @ self.down.mT).double()
        return float(both.sum().clamp_min(0).sqrt())

    def on(self, device: torch.device) -> Update:
        """The same change, in the memory of a device."""
        return Update(self.up.to(device), self.down.to(device))

    def scaled(self, factor: float) -> Update:
        """The change times a number."""
        return Update(self.up * factor, self.down)

    def padded(self, rank: int) -> Update:
        """The same change, of a rank that is no smaller."""
        more = rank - self.rank
        up = torch.cat((self.up, self.up.new_zeros(len(self.up), more)), 1)
        return Update(up, torch.cat((self.down, self.down.new_zeros(more, self.down.shape[1]))))

    def rounded(self, rank: int) -> Update:
        """As `of` of its matrix, which is not made for it."""
        if rank >= self.rank:
            return self
        left, core_left = torch.linalg.qr(self.up.double())
        right, core_right = torch.linalg.qr(self.down.double().mT)
        u, sizes, vt = torch.linalg.svd(core_left @ core_right.mT, full_matrices=False)
        root = sizes[:rank].sqrt()
        up, down = left @ u[:, :rank] * root, root[:, None] * (vt[:rank] @ right.mT)
        return Update(up.float(), down.float())


def to_arrays(updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
    """Updates by place as arrays by name, `PLACE.up` and `PLACE.down`."""
    return {
        f"{place}.{side}": getattr(update, side).numpy()
        for place, update in updates.items()
        for side in _SIDES
    }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Update]:
    """What `to_arrays` was given; arrays of other names are left out."""
    places = dict.fromkeys(name.removesuffix(".up") for name in arrays if name.endswith(".up"))
    return {
        place: Update(*(torch.tensor(arrays[f"{place}.{side}"]) for side in _SIDES))
        for place in places
    }
