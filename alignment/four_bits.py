"""Tensors in four bits: whole numbers from -7 to 7, in a unit for each group of numbers.

Group-wise quantisation as in ZeroQuant (arXiv 2206.01861); each group takes the unit, of a few,
that leaves least error. Groups are 64 numbers in the order in which they lie, the last filled up
with zeros.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

GROUP = 64
_MOST = 7
_CLIPS = (1.0, 0.9, 0.8, 0.7)  # of a group's largest number: what lies beyond is cut off


def units_of(tensor: Tensor) -> Tensor:
    """The unit of each group, float32 [groups], as it is stored."""
    groups = _groups(tensor)
    most = groups.abs().amax(1, keepdim=True) / _MOST
    best, unit = groups.new_full(most.shape, torch.inf), most
    for clip in _CLIPS:
        tried = (most * clip).half().float()
        error = (_whole(groups, tried) * tried - groups).square().sum(1, keepdim=True)
        unit = torch.where(error < best, tried, unit)
        best = torch.minimum(best, error)
    return unit[:, 0]


def rounded(tensor: Tensor, units: Tensor) -> Tensor:
    """The tensor as it is in four bits with these units [groups]."""
    numbers = _whole(_groups(tensor), units[:, None]) * units[:, None]
    return numbers.reshape(-1)[: tensor.numel()].reshape(tensor.shape)


def packed(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes, uint8 [n / 2], and units, float16 [groups].

    A byte holds two numbers, each plus 8: the earlier one in its low half.
    """
    units = units_of(tensor)
    numbers = (_whole(_groups(tensor), units[:, None]) + 8).to(torch.uint8).reshape(-1, 2)
    return numbers[:, 0] | (numbers[:, 1] << 4), units.half()


def unpacked(pairs: Tensor, units: Tensor, shape: torch.Size | list[int]) -> Tensor:
    """Float32 of the shape, from what `packed` made."""
    numbers = torch.stack((pairs & 15, pairs >> 4), dim=1).reshape(-1, GROUP).float() - 8
    flat = (numbers * units.float()[:, None]).reshape(-1)
    return flat[: torch.Size(shape).numel()].reshape(shape)


def _groups(tensor: Tensor) -> Tensor:
    flat = tensor.float().reshape(-1)
    return pad(flat, (0, -len(flat) % GROUP)).reshape(-1, GROUP)


def _whole(groups: Tensor, unit: Tensor) -> Tensor:
    return (groups / unit.clamp_min(torch.finfo().tiny)).round().clamp(-_MOST, _MOST)
