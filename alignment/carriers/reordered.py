"""By the order in which two models of one shape hold the same heads and neurons."""

from dataclasses import dataclass

from alignment.crossing import Carrier, Crossing, NotApplicable
from alignment.updates import Update


@dataclass(frozen=True)
class Reordered(Carrier):
    """Rows and columns in the target's order, which Git Re-Basin finds (arXiv 2209.04836)."""

    def carry(self, update: Update, over: Crossing) -> Update:
        if over.order is None or over.source.shape != over.target.shape:
            raise NotApplicable(f"{self.name} needs two models of one shape")
        rows, columns = over.order
        return Update(update.up[rows], update.down[:, columns])
