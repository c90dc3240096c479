"""Reduced-rank ridge regression.

Shapes: ds source width, dt target width, m the smaller of them, r rank.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignment.fitted import MomentFitter, low_rank_through_means
from alignment.maps import Linear
from alignment.moments import Moments
from alignment.spectrum import FEW_LAMBDAS, SHARES, Spectrum, column, components, counts


@dataclass(frozen=True)
class ReducedRank(MomentFitter):
    """Ridge regression under a bound on the rank of the weight (Izenman 1975; Mukherjee, Zhu 2011).

    The solution is that of `ridge` followed by the projection onto the r main directions of its
    fitted values, the penalty counting as rows. λ and the rank, a share of the smaller width, are
    chosen on held-out folds. The directions are those of a λ, and of these all ranks are sums.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda", "share")

    lambdas: tuple[float, ...] = FEW_LAMBDAS
    shares: tuple[float, ...] = SHARES

    def solve(self, training: Moments, *chosen: float) -> Linear:
        spectrum = Spectrum(training)
        coefficients, directions = _directions(spectrum, chosen[0])
        (rank,) = counts(chosen[1:], directions.shape[1])
        right = (spectrum.vectors @ coefficients[:, :rank]).mT
        return low_rank_through_means(directions[:, :rank], right, training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        spectrum = Spectrum(training)
        seen = spectrum.seen(held)
        last = torch.tensor(counts(self.shares, min(seen.xy.shape))) - 1
        errors = []
        for value in self.lambdas:
            coefficients, directions = _directions(spectrum, value)
            crossed = (seen.xy @ directions * coefficients).sum(0)
            predicted = (seen.xx @ coefficients * coefficients).sum(0)
            errors.append(seen.yy.trace() + (predicted - 2 * crossed).cumsum(0)[last])
        return torch.stack(errors)


def _directions(spectrum: Spectrum, value: float) -> tuple[Tensor, Tensor]:
    """Main directions of the fitted values [dt, m], and how components make each [ds, m]."""
    shrunk = spectrum.ridge(column([value])).mT * spectrum.projected
    _, directions = components(spectrum.projected.mT @ shrunk)
    directions = directions[:, : min(shrunk.shape)]
    return shrunk @ directions, directions
