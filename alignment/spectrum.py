"""The principal components of a source, which serve every candidate of the linear fitters at once.

Shapes: ds source width, dt target width, c candidates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignment.fitted import ROUNDING
from alignment.moments import Moments

LAMBDAS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FEW_LAMBDAS = (1e-4, 1e-3, 1e-2, 1e-1, 3e-1, 1.0)  # where each is tried with other candidates
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)

# What rounding may put into a second moment, over the spreads of its two features (see `moments`).
_PRECISION = 1e-6


class Spectrum:
    """cov_x = V diag(e) Vᵀ over training rows, e falling, and what each component says of y.

    A fitter that shrinks or drops components has the weight (V diag(shrink) Vᵀ cov_xy)ᵀ: for all
    its candidates this one decomposition serves, and of held-out rows one quadratic form.
    """

    def __init__(self, training: Moments) -> None:
        self._training = training
        cov_x, cov_xy = covariances(training)
        values, self.vectors = components(cov_x)
        self.values = values.clamp_min(0.0)  # rounding leaves -1e-17 where the rank is short
        # A source that does not vary has cov_xy = 0 and any positive unit gives the zero map.
        self._unit = float(cov_x.diagonal().mean()) or 1.0
        self.projected = self.vectors.mT @ cov_xy  # [ds, dt]
        # Its variance were the features uncorrelated: rounding leaves a known share of that.
        alone = self.vectors.mT.square() @ cov_x.diagonal()
        known = self.values > _PRECISION * alone
        self.inverse = torch.where(known, 1 / self.values, 0.0)  # as a pseudo-inverse has it

    def ridge(self, lambdas: Tensor) -> Tensor:
        """1 / (e + λ * mean diagonal of cov_x) [c, ds], for λ [c, 1] or [c, ds]."""
        return 1 / (self.values + lambdas * self._unit)

    def weight(self, shrink: Tensor) -> Tensor:
        """[dt, ds] for shrink [ds]."""
        return (self.vectors @ (shrink[:, None] * self.projected)).mT

    def seen(self, held: Moments) -> Moments:
        """Other rows about the training means, with the components for source features."""
        near = held.about(self._training.mean_x, self._training.mean_y)
        turn = self.vectors.mT
        xx, xy = turn @ near.xx @ self.vectors, turn @ near.xy
        return Moments(near.count, turn @ near.sum_x, near.sum_y, xx, xy, near.yy)

    def squared_errors(self, held: Moments, shrinks: Tensor) -> Tensor:
        """Σ‖y - prediction‖² [c] over other rows, for shrinks [c, ds].

        With d a row of shrinks it is tr(yy) - 2 d·cross + dᵀ gain d: both are made once.
        """
        seen = self.seen(held)
        cross = (seen.xy * self.projected).sum(1)
        gain = seen.xx * (self.projected @ self.projected.mT)
        return seen.yy.trace() - 2 * shrinks @ cross + (shrinks @ gain * shrinks).sum(1)


def components(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [d], falling, and eigenvectors [d, d] of a covariance [d, d], one a column."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0), vectors.flip(1)


def covariances(moments: Moments) -> tuple[Tensor, Tensor]:
    """cov_x [ds, ds] and cov_xy [ds, dt], zero for features that vary by their rounding only."""
    cov_x = moments.cov_x
    varies = cov_x.diagonal() > ROUNDING * moments.xx.diagonal() / moments.count
    return cov_x * varies * varies[:, None], moments.cov_xy * varies[:, None]


def column(values: Sequence[float]) -> Tensor:
    """Candidates [c, 1] in float64."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def counts(shares: Sequence[float], width: int) -> list[int]:
    """How many of a width each share is: the nearest number, at least one."""
    return [max(1, round(share * width)) for share in shares]
