"""Principal-component regression: least squares from the source's first components.

Shapes: ds source width, c candidates.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignment.fitted import MomentFitter, through_means
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import SHARES, Spectrum, column, counts


@dataclass(frozen=True)
class Pca(MomentFitter):
    """Least squares from the k first principal components of the source (Massy 1965).

    k is a share of the source's width, chosen on held-out folds. Components that the precision
    of the moments cannot tell from none are left out.
    """

    chooses: ClassVar[tuple[str, ...]] = ("share",)

    shares: tuple[float, ...] = SHARES

    def solve(self, training: Moments, *chosen: float) -> Affine:
        spectrum = Spectrum(training)
        return through_means(spectrum.weight(_first(spectrum, chosen)[0]), training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        spectrum = Spectrum(training)
        return spectrum.squared_errors(held, _first(spectrum, self.shares))


def _first(spectrum: Spectrum, shares: tuple[float, ...]) -> Tensor:
    """1 / e for the first components, 0 for the others [c, ds]."""
    places = torch.arange(len(spectrum.values))
    return spectrum.inverse * (places < column(counts(shares, len(places))))
