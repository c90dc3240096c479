"""Ridge regression by bands: the source's large, middling and small components apart.

Shapes: ds source width, c candidates.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from alignment.fitted import FitError, MomentFitter, through_means
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import FEW_LAMBDAS, Spectrum


@dataclass(frozen=True)
class MultiScale(MomentFitter):
    """The sum of three ridge regressions, each from one band of components with its own λ.

    The components lie in order of variance. The coarse band is those before which less than
    `bands[0]` of all variance lies, the middle band goes on to `bands[1]`, the fine band is the
    rest; a band may be empty. λ is in the unit of `ridge`, which this is when all three are equal.

    All combinations of candidates are tried, not one band after another: on training rows
    components are uncorrelated, on held-out rows they are not, so the best λ of a band depends on
    the others; and each combination is but one more row of one quadratic form.
    """

    chooses: ClassVar[tuple[str, ...]] = ("coarse_lambda", "middle_lambda", "fine_lambda")

    bands: tuple[float, float] = (0.9, 0.99)
    coarse_lambdas: tuple[float, ...] = FEW_LAMBDAS
    middle_lambdas: tuple[float, ...] = FEW_LAMBDAS
    fine_lambdas: tuple[float, ...] = FEW_LAMBDAS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.bands[0] <= self.bands[1] < 1:
            raise FitError(
                f"{self.name} needs two shares of the variance, rising, each above 0 and below 1, "
                f"for where bands begin; got {self.bands}"
            )

    def solve(self, training: Moments, *chosen: float) -> Affine:
        spectrum = Spectrum(training)
        return through_means(spectrum.weight(self._shrinks(spectrum, [chosen])[0]), training)

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        spectrum = Spectrum(training)
        combined = product(self.coarse_lambdas, self.middle_lambdas, self.fine_lambdas)
        return spectrum.squared_errors(held, self._shrinks(spectrum, combined))

    def _shrinks(self, spectrum: Spectrum, combined: Iterable[tuple[float, ...]]) -> Tensor:
        """[c, ds] for c combinations of a λ for each band."""
        before = spectrum.values.cumsum(0) - spectrum.values
        edges = torch.tensor(self.bands, dtype=torch.float64) * spectrum.values.sum()
        band = torch.bucketize(before, edges, right=True)
        return spectrum.ridge(torch.tensor(list(combined), dtype=torch.float64)[:, band])
