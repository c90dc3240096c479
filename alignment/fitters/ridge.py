"""Ridge regression from moments, λ chosen on held-out folds.

Shapes: ds source width, dt target width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.fitted import FitError, Fitted, about, splits, through_means
from alignment.maps import Affine
from alignment.moments import FoldedMoments, Moments

LAMBDAS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


@dataclass(frozen=True)
class Ridge:
    """Least squares with penalty λ * mean diagonal of cov_x * ‖weight‖², intercept free.

    λ is the candidate with the best held-out R² pooled over folds. One eigendecomposition of the
    training covariance serves every λ.
    """

    lambdas: tuple[float, ...] = LAMBDAS

    def __post_init__(self) -> None:
        if not self.lambdas or not all(0 < value < float("inf") for value in self.lambdas):
            raise FitError(f"ridge needs at least one λ, each positive; got {self.lambdas}")

    def fit(self, moments: FoldedMoments) -> Fitted:
        total, pairs = splits(moments)
        errors, spread = torch.zeros(len(self.lambdas), dtype=torch.float64), 0.0
        for training, held in pairs:
            centred = about(held, training.mean_x, training.mean_y)
            spread += float(centred.yy.trace())
            errors += _Solver(training).squared_errors(centred, self.lambdas)
        if spread <= 0:
            raise FitError("cannot judge a fit: the target does not vary over the held-out rows")
        r2 = (1 - errors / spread).tolist()
        best = max(range(len(r2)), key=r2.__getitem__)
        return Fitted(
            map=_Solver(total).solution(self.lambdas[best]),
            held_out_r2=r2[best],
            chosen={"lambda": self.lambdas[best]},
            curve={f"{value:g}": score for value, score in zip(self.lambdas, r2, strict=True)},
        )


class _Solver:
    """cov_x = V diag(e) Vᵀ, so that every λ's weight is V diag(1 / (e + λ)) Vᵀ cov_xy."""

    def __init__(self, training: Moments) -> None:
        self.training = training
        cov_x = training.cov_x
        values, self.vectors = torch.linalg.eigh(cov_x)
        self.values = values.clamp_min(0.0)  # rounding leaves -1e-17 where the rank is short
        # A source that does not vary has cov_xy = 0 and any positive unit gives the zero map.
        self.unit = float(cov_x.diagonal().mean()) or 1.0
        self.projected = self.vectors.mT @ training.cov_xy  # [ds, dt]

    def solution(self, value: float) -> Affine:
        shrunk = self.projected / (self.values + value * self.unit)[:, None]
        return through_means((self.vectors @ shrunk).mT, self.training)

    def squared_errors(self, held: Moments, lambdas: Sequence[float]) -> Tensor:
        """Σ‖y - prediction‖² for every λ, over rows already about the training means.

        With d = 1 / (e + λ) the error is tr(yy) - 2 d·cross + dᵀ gain d: both are made once.
        """
        cross = (self.vectors.mT @ held.xy * self.projected).sum(1)
        spread = self.vectors.mT @ held.xx @ self.vectors
        gain = spread * (self.projected @ self.projected.mT)
        shrink = 1 / (self.values + torch.tensor(lambdas, dtype=torch.float64)[:, None] * self.unit)
        return held.yy.trace() - 2 * shrink @ cross + (shrink @ gain * shrink).sum(1)
