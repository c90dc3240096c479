"""A rotation and a small correction of it.

Shapes: ds source width, dt target width.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from alignment.fitted import MomentFitter, through_means
from alignment.fitters.procrustes import scaled_rotation
from alignment.fitters.ridge import Ridge
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import Spectrum, column


@dataclass(frozen=True)
class Residual(MomentFitter):
    """Ridge regression shrunk towards the map of `procrustes` instead of towards zero.

    Least squares with penalty λ * mean diagonal of cov_x * ‖weight - base‖², intercept free: the
    base, and ridge on what it leaves of the target. λ is chosen on held-out folds; a large one
    gives the base.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda",)

    lambdas: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0, 100.0)

    def solve(self, training: Moments, *chosen: float) -> Affine:
        base = scaled_rotation(training)
        spectrum = Spectrum(training.less(base))
        correction = spectrum.weight(spectrum.ridge(column(chosen))[0])
        return through_means(base + correction, training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        base = scaled_rotation(training)
        return Ridge(self.lambdas).squared_errors(training.less(base), held.less(base))
