"""The naive map: keep the numbers in place, add zeros or drop what does not fit."""

from dataclasses import dataclass

import torch

from alignment.fitted import Fitted, held_out_r2, splits
from alignment.maps import Affine
from alignment.moments import FoldedMoments, Moments


@dataclass(frozen=True)
class PadTruncate:
    """Feature i of the source becomes feature i of the target; learns nothing. A control."""

    def fit(self, moments: FoldedMoments) -> Fitted:
        total, pairs = splits(moments)
        return Fitted(_resize(total), held_out_r2(_resize, pairs))


def _resize(moments: Moments) -> Affine:
    dt, ds = len(moments.sum_y), len(moments.sum_x)
    return Affine(torch.eye(dt, ds), torch.zeros(dt))
