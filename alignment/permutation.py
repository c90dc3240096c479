"""The order in which two models of one shape hold the same heads and neurons (Git Re-Basin).

A block computes the same with its neurons, the KV heads of its attention, and the query heads of
each of these, in any other order. Weight matching (Ainsworth et al. 2023, arXiv 2209.04836) finds
the order that brings the rows and columns of one model nearest to those of another. The residual
stream is taken to be the same in both: across it only rotations leave a model as it is.

Shapes: n neurons, h query heads, k KV heads, w width of a head, d width of the residual stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attention:
    """The matrices of one attention: queries [h w, d], keys and values [k w, d], out [d, h w]."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    out: Tensor
    head_width: int


@dataclass(frozen=True, eq=False)
class HeadOrder:
    """For each head of the target the one of the source: query heads [h], and KV heads [k]."""

    queries: Tensor
    groups: Tensor


def match_neurons(
    source: Sequence[Tensor], target: Sequence[Tensor], back: tuple[Tensor, Tensor]
) -> Tensor:
    """For each neuron of the target the one of the source, int64 [n].

    `source` and `target` are matrices [n, d] into the neurons, in the same order; `back` those out
    of them [d, n], of source and target.
    """
    likeness = back[1].double().mT @ back[0].double()
    for one, other in zip(source, target, strict=True):
        likeness += other.double() @ one.double().mT
    return _assigned(likeness)


def match_heads(source: Attention, target: Attention) -> HeadOrder:
    """The best order of KV heads, and within each of the query heads that it serves."""
    kv = _alike(source.keys, target.keys, source) + _alike(source.values, target.values, source)
    queries = _alike(source.queries, target.queries, source)
    queries += _alike(source.out.mT, target.out.mT, source)
    k, each = len(kv), len(queries) // len(kv)
    blocks = queries.unflatten(1, (k, each)).unflatten(0, (k, each)).transpose(1, 2)
    within = [[_assigned(blocks[one, other]) for other in range(k)] for one in range(k)]
    gained = [
        [float(blocks[a, b][range(each), within[a][b]].sum()) for b in range(k)] for a in range(k)
    ]
    groups = _assigned(kv + torch.tensor(gained, dtype=torch.float64))
    order = [int(b) * each + within[a][int(b)] for a, b in enumerate(groups)]
    return HeadOrder(torch.cat(order), groups)


def rows_of(heads: Tensor, head_width: int) -> Tensor:
    """The rows of heads in an order, int64 [heads w]."""
    return (heads[:, None] * head_width + torch.arange(head_width)).flatten()


def _alike(source: Tensor, target: Tensor, of: Attention) -> Tensor:
    """Σ of products of the rows of each pair of heads, [target heads, source heads]."""
    one, other = (
        each.double().unflatten(0, (-1, of.head_width)).flatten(1) for each in (source, target)
    )
    return other @ one.mT


def _assigned(likeness: Tensor) -> Tensor:
    """For each row its column, one to one, so that the sum is greatest."""
    return torch.from_numpy(linear_sum_assignment(likeness.numpy(), maximize=True)[1])
