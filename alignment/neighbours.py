"""Nearest rows under cosine distance, found while the Gram matrix passes by a block at a time.

Shapes: n rows, d width, b rows of a block, Ls source layers, Lt target layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


class Neighbours:
    """The k rows nearest to each row of x [n, d]: `indices` [n, k] once all blocks were offered."""

    def __init__(self, x: Tensor, k: int) -> None:
        self.k = k
        self.length = torch.linalg.vector_norm(x, dim=1).clamp_min_(TINY)
        self.nearness = torch.full((len(x), k), -torch.inf)
        self.indices = torch.zeros(len(x), k, dtype=torch.int64)

    def offer(self, block: Tensor, left: slice, right: slice) -> None:
        """Inner products [b, b] of rows `left` with rows `right`, `left` not after `right`."""
        # A row's own length does not change which rows are nearest to it.
        nearness = block / self.length[right]
        if left == right:
            nearness.fill_diagonal_(-torch.inf)
        else:
            self._keep((block / self.length[left, None]).mT, right, left)
        self._keep(nearness, left, right)

    def _keep(self, nearness: Tensor, rows: slice, candidates: slice) -> None:
        values, found = nearness.topk(min(self.k, nearness.shape[1]))
        values = torch.cat((self.nearness[rows], values), dim=1)
        found = torch.cat((self.indices[rows], found + candidates.start), dim=1)
        self.nearness[rows], order = values.topk(self.k)
        self.indices[rows] = found.gather(1, order)


def overlaps(source: list[Neighbours], target: list[Neighbours]) -> Tensor:
    """Mean share of neighbours in common, [Ls, Lt]."""
    wanted = torch.stack([s.indices for s in source], dim=1).flatten(1)  # [n, Ls * k]
    columns = []
    for t in target:
        near = torch.zeros(len(wanted), len(wanted)).scatter_(1, t.indices, 1.0)
        shared = near.gather(1, wanted).view(len(wanted), len(source), -1)
        columns.append(shared.mean((0, 2), dtype=torch.float64))
    return torch.stack(columns, dim=1)
