"""One matrix of a source and the one of a target that is to take what is added to it.

Shapes: os, is and ot, it what the matrices of source and target return and read, r rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from alignment.maps import Map
from alignment.updates import Update


class NotApplicable(ValueError):
    """A carrier has no answer for such a pair of matrices; one line says what it needs."""


@dataclass(frozen=True, eq=False)
class Crossing:
    """Both matrices, source [os, is] and target [ot, it], and what is known of their sides.

    `reading` maps what the target reads to what the source reads, `writing` what the source returns
    to what the target does. `order` are, for models of one shape, the row and the column of the
    source for each of the target, int64 [ot] and [it].
    """

    source: Tensor
    target: Tensor
    reading: Map | None = None
    writing: Map | None = None
    order: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Carrier(ABC):
    """A recipe: a frozen dataclass of hyperparameters, that carries what is added to a matrix."""

    @abstractmethod
    def carry(self, update: Update, over: Crossing) -> Update:
        """What is to be added to the target's matrix, of the same rank at most.

        Raises:
            NotApplicable: there is no such thing between these matrices.
        """

    @property
    def name(self) -> str:
        """The key in CARRIERS, which is the file's name."""
        return type(self).__module__.rpartition(".")[2]
