"""Relative representations: a point is what it has in common with the anchors.

Shapes: n anchors, ds source width, dt target width, c candidates.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignment.fitted import MomentFitter, through_means
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import LAMBDAS, column, components, covariances


@dataclass(frozen=True)
class Relative(MomentFitter):
    """The target point whose inner products with the anchors are those of the source point.

    The coordinates of a point are its inner products with n anchors (Moschella et al. 2023), every
    anchor row being one; they have no axes of a model, so those of all sources are comparable.
    With centred anchors S [n, ds] and T [n, dt], x becomes the y that has the least
    ‖T y - S x‖² + n λ * mean diagonal of cov_y * ‖y‖² (the anchor projection, arXiv 2605.09875),
    which is (cov_y + λ unit)⁻¹ cov_yx x: nothing but sums.

    Inner products do not tell how long either side is: for y = s R x the answer is R x / s. So it
    is multiplied by the scale that is best in least squares. Exact for rotations with a scale; λ is
    chosen on held-out folds.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda",)

    lambdas: tuple[float, ...] = (*LAMBDAS, 10.0, 100.0)  # the last is nearly cov_yx alone

    def solve(self, training: Moments, *chosen: float) -> Affine:
        anchors = _Anchors(training)
        (shrink,) = anchors.shrinks(chosen)
        return through_means(anchors.vectors @ (shrink[:, None] * anchors.projected), training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        """tr(yy) - 2 d·cross + d²·gain, d being a row of shrinks: both are made once."""
        anchors = _Anchors(training)
        seen = held.about(training.mean_x, training.mean_y)
        cross = (anchors.projected @ seen.xy * anchors.vectors.mT).sum(1)
        gain = (anchors.projected @ seen.xx * anchors.projected).sum(1)
        shrinks = anchors.shrinks(self.lambdas)
        return seen.yy.trace() - 2 * shrinks @ cross + shrinks.square() @ gain


class _Anchors:
    """cov_y = V diag(e) Vᵀ over training rows, and cov_yx seen from it."""

    def __init__(self, training: Moments) -> None:
        cov_x, cov_xy = covariances(training)
        cov_y, _ = covariances(training.swap())
        values, self.vectors = components(cov_y)
        self._values = values.clamp_min(0.0)  # rounding leaves -1e-17 where the rank is short
        self._unit = float(cov_y.diagonal().mean())  # not 0: such a target is not judged at all
        self.projected = self.vectors.mT @ cov_xy.mT  # [dt, ds]
        self._cross = self.projected.square().sum(1)
        self._spread = (self.projected @ cov_x * self.projected).sum(1)

    def shrinks(self, lambdas: tuple[float, ...]) -> Tensor:
        """scale / (e + λ unit) [c, dt], the scale being that of least squares."""
        plain = 1 / (self._values + column(lambdas) * self._unit)
        spread = (plain.square() @ self._spread).clamp_min(torch.finfo().tiny)
        return plain * (plain @ self._cross / spread)[:, None]
