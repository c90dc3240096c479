"""Orthogonal Procrustes: the best rotation (with reflection) from source to target.

Shapes: ds source width, dt target width.
"""

from dataclasses import dataclass

import torch

from alignment.fitted import Fitted, held_out_r2, splits, through_means
from alignment.maps import Affine
from alignment.moments import FoldedMoments, Moments


@dataclass(frozen=True)
class Procrustes:
    """y - mean_y = scale * R (x - mean_x), R [dt, ds] (semi-)orthogonal (Schönemann 1966).

    R maximises tr(R cov_xy). Between equal widths that is the least-squares rotation; otherwise
    it is the least-squares rotation after padding the narrower side with zeros. The scale, when
    asked for, is the least-squares one for that R, and 1 when not.
    """

    scaled: bool = True

    def fit(self, moments: FoldedMoments) -> Fitted:
        total, pairs = splits(moments)
        return Fitted(self._rotation(total), held_out_r2(self._rotation, pairs))

    def _rotation(self, moments: Moments) -> Affine:
        u, strengths, vt = torch.linalg.svd(moments.cov_xy, full_matrices=False)
        rotation = (u @ vt).mT
        if self.scaled:
            spread = (rotation @ moments.cov_x * rotation).sum()
            rotation = rotation * (strengths.sum() / spread.clamp_min(torch.finfo().tiny))
        return through_means(rotation, moments)
