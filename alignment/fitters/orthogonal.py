"""Orthogonal Procrustes: the best rotation (with reflection) from source to target.

Shapes: ds source width, dt target width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.fitted import MomentFitter, through_means
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import covariances


@dataclass(frozen=True)
class Orthogonal(MomentFitter):
    """y - mean_y = R (x - mean_x), R [dt, ds] (semi-)orthogonal (Schönemann 1966).

    R maximises tr(R cov_xy). Between equal widths that is the least-squares rotation; otherwise
    it is the least-squares rotation after padding the narrower side with zeros.
    """

    def solve(self, training: Moments, *_chosen: float) -> Affine:
        return through_means(rotation(training), training)


def rotation(moments: Moments) -> Tensor:
    """R [dt, ds] in float64."""
    u, _, vt = torch.linalg.svd(covariances(moments)[1], full_matrices=False)
    return (u @ vt).mT
