"""The line along which the two points of a pair differ most.

Shapes: n pairs, d width.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from alignment.contrast import Array, Extractor


@dataclass(frozen=True)
class PrincipalDifference(Extractor):
    """First principal component of the differences of pairs (arXiv 2310.01405).

    Each pair counts in both orders, so that the differences have mean zero: centring them on their
    own mean would take away the very difference that is looked for. Features are not standardised,
    as in the paper: a massive dimension that differs inside pairs takes the component.
    """

    needs_pairs: ClassVar[bool] = True

    def axis(self, positive: Array, negative: Array) -> Array:
        return np.linalg.svd(positive - negative, full_matrices=False).Vh[0]
