"""The mean of one side less the mean of the other.

Shapes: n positive and m negative points, d width.
"""

from dataclasses import dataclass

from alignment.contrast import Array, Extractor, difference


@dataclass(frozen=True)
class DifferenceOfMeans(Extractor):
    """Activation addition over many texts (arXiv 2308.10248, 2312.06681)."""

    def axis(self, positive: Array, negative: Array) -> Array:
        return difference(positive, negative)
