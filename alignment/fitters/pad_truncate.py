"""The naive map: keep the numbers in place, add zeros or drop what does not fit."""

from dataclasses import dataclass

import torch

from alignment.fitted import MomentFitter
from alignment.maps import Affine
from alignment.moments import Moments


@dataclass(frozen=True)
class PadTruncate(MomentFitter):
    """Feature i of the source becomes feature i of the target; learns nothing. A control."""

    def solve(self, training: Moments, *_chosen: float) -> Affine:
        dt, ds = len(training.sum_y), len(training.sum_x)
        return Affine(torch.eye(dt, ds), torch.zeros(dt))
