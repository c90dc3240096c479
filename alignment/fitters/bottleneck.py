"""The first components of the source to the first components of the target.

Shapes: ds source width, dt target width, r rank.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignment.fitted import MomentFitter, low_rank_through_means
from alignment.maps import Linear
from alignment.moments import Moments
from alignment.spectrum import SHARES, Spectrum, components, counts


@dataclass(frozen=True)
class Bottleneck(MomentFitter):
    """Least squares from r principal components of the source to r of the target.

    r is a share of the smaller width, chosen on held-out folds. Components that the precision of
    the moments cannot tell from none are left out.
    """

    chooses: ClassVar[tuple[str, ...]] = ("share",)

    shares: tuple[float, ...] = SHARES

    def solve(self, training: Moments, *chosen: float) -> Linear:
        spectrum = Spectrum(training)
        between, directions = _between(spectrum, training)
        (rank,) = counts(chosen, min(between.shape))
        left = directions[:, :rank] @ between[:rank, :rank].mT
        return low_rank_through_means(left, spectrum.vectors[:, :rank].mT, training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        spectrum = Spectrum(training)
        between, directions = _between(spectrum, training)
        seen = spectrum.seen(held)
        crossed = (seen.xy @ directions * between).cumsum(0).cumsum(1).diagonal()
        errors = []
        for rank in counts(self.shares, min(between.shape)):
            block = between[:rank, :rank]
            predicted = (seen.xx[:rank, :rank] @ block * block).sum()
            errors.append(seen.yy.trace() - 2 * crossed[rank - 1] + predicted)
        return torch.stack(errors)


def _between(spectrum: Spectrum, training: Moments) -> tuple[Tensor, Tensor]:
    """Coefficients [ds, dt] from components to components, and the target's components [dt, dt].

    Components of the source are uncorrelated, so that each coefficient stands whatever the rank.
    """
    _, directions = components(training.cov_y)
    return spectrum.inverse[:, None] * (spectrum.projected @ directions), directions
