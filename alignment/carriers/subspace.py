"""Through the main directions of both matrices, without any data.

Shapes: k directions.
"""

from dataclasses import dataclass

from torch import Tensor

from alignment.crossing import Carrier, Crossing
from alignment.main_directions import main_directions
from alignment.updates import Update


@dataclass(frozen=True)
class Subspace(Carrier):
    """The k-th main direction of the source's matrix stands for the k-th of the target's.

    As Cross-LoRA (arXiv 2508.05232): what is added is taken apart along the singular vectors of
    the source's matrix, and put together along those of the target's. A pair of singular vectors
    has a sign that says nothing: the one by which the left vector's largest number is positive.
    """

    directions: int = 320

    def carry(self, update: Update, over: Crossing) -> Update:
        count = min(self.directions, *over.source.shape, *over.target.shape)
        left_s, right_s = _signed(over.source, count)
        left_t, right_t = _signed(over.target, count)
        up, down = update.up.double(), update.down.double()
        return Update((left_t @ (left_s.mT @ up)).float(), ((down @ right_s) @ right_t.mT).float())


def _signed(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Its main left [o, k] and right [i, k] vectors, with signs that say something."""
    _, left, right = main_directions(matrix, count)
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return left * signs, right * signs
