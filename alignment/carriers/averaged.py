"""The average of two models' weights, as far as it is one of low rank."""

from dataclasses import dataclass

from alignment.carriers.resized import resized
from alignment.crossing import Carrier, Crossing
from alignment.updates import Update


@dataclass(frozen=True)
class Averaged(Carrier):
    """Half way from the target's matrix to the adapted one of the source, resized: a baseline.

    What that adds to the target is of full rank; the nearest of the adapter's rank is taken.
    """

    def carry(self, update: Update, over: Crossing) -> Update:
        rows, columns = over.target.shape
        adapted = over.source.float() + update.matrix
        there = resized(resized(adapted, rows).mT, columns).mT
        return Update.of((there - over.target.float()) / 2, update.rank)
