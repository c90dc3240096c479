"""Orthogonal Procrustes with a scale.

Shapes: ds source width, dt target width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.fitted import MomentFitter, through_means
from alignment.fitters.orthogonal import rotation
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import covariances


@dataclass(frozen=True)
class Procrustes(MomentFitter):
    """y - mean_y = scale * R (x - mean_x): R that of `orthogonal`, and the best scale for it.

    The best is that of least squares (Schönemann and Carroll 1970).
    """

    def solve(self, training: Moments, *_chosen: float) -> Affine:
        return through_means(scaled_rotation(training), training)


def scaled_rotation(moments: Moments) -> Tensor:
    """scale * R [dt, ds] in float64, zero for a source that does not vary."""
    turn = rotation(moments)
    cov_x, cov_xy = covariances(moments)
    spread = (turn @ cov_x * turn).sum()
    return turn * ((turn * cov_xy.mT).sum() / spread.clamp_min(torch.finfo().tiny))
