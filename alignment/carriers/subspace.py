"""Through the main directions of both matrices, without any data.

Shapes: k directions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.crossing import Carrier, Crossing
from alignment.updates import Update


@dataclass(frozen=True)
class Subspace(Carrier):
    """The k-th main direction of the source's matrix stands for the k-th of the target's.

    As Cross-LoRA (arXiv 2508.05232): what is added is taken apart along the singular vectors of
    the source's matrix, and put together along those of the target's. A pair of singular vectors
    has a sign that says nothing: the one by which the left vector's largest number is positive.
    """

    directions: int = 320

    def carry(self, update: Update, over: Crossing) -> Update:
        count = min(self.directions, *over.source.shape, *over.target.shape)
        left_s, right_s = main_directions(over.source, count)
        left_t, right_t = main_directions(over.target, count)
        up, down = update.up.double(), update.down.double()
        return Update((left_t @ (left_s.mT @ up)).float(), ((down @ right_s) @ right_t.mT).float())


def main_directions(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first left [o, k] and right [i, k] singular vectors, float64.

    Of the smaller square, which takes a third of the time: the main ones lose nothing by it. One
    along which nothing varies is zero on the larger side.
    """
    matrix = matrix.double()
    if len(matrix) > matrix.shape[1]:
        right = _largest(matrix.mT @ matrix, count)
        left = torch.nn.functional.normalize(matrix @ right, dim=0)
    else:
        left = _largest(matrix @ matrix.mT, count)
        right = torch.nn.functional.normalize(matrix.mT @ left, dim=0)
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return left * signs, right * signs


def _largest(square: Tensor, count: int) -> Tensor:
    """Eigenvectors [d, k] of the largest eigenvalues, the largest first."""
    return torch.linalg.eigh(square).eigenvectors.flip(1)[:, :count]
