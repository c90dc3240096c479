"""The naive carrier: every number stays in its place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.crossing import Carrier, Crossing
from alignment.updates import Update


@dataclass(frozen=True)
class Resized(Carrier):
    """Rows and columns beyond the target's are dropped, missing ones are zero. A baseline."""

    def carry(self, update: Update, over: Crossing) -> Update:
        rows, columns = over.target.shape
        return Update(resized(update.up, rows), resized(update.down.mT, columns).mT.contiguous())


def resized(matrix: Tensor, rows: int) -> Tensor:
    """A matrix [n, m] cut off, or filled up with zeros, to [rows, m]."""
    kept = matrix[:rows]
    return torch.cat((kept, kept.new_zeros(rows - len(kept), matrix.shape[1])))
