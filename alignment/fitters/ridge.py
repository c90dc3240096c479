"""Ridge regression from moments, λ chosen on held-out folds."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from alignment.fitted import MomentFitter, through_means
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import LAMBDAS, Spectrum, column


@dataclass(frozen=True)
class Ridge(MomentFitter):
    """Least squares with penalty λ * mean diagonal of cov_x * ‖weight‖², intercept free.

    Hoerl and Kennard 1970; λ is the candidate with the best held-out R² pooled over folds.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda",)

    lambdas: tuple[float, ...] = LAMBDAS

    def solve(self, training: Moments, *chosen: float) -> Affine:
        spectrum = Spectrum(training)
        return through_means(spectrum.weight(spectrum.ridge(column(chosen))[0]), training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        spectrum = Spectrum(training)
        return spectrum.squared_errors(held, spectrum.ridge(column(self.lambdas)))
