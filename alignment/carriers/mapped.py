"""Through maps of what the matrices read and return, fitted to activations."""

from dataclasses import dataclass

from alignment.crossing import Carrier, Crossing, NotApplicable
from alignment.updates import Update


@dataclass(frozen=True)
class Mapped(Carrier):
    """down_t = down_s N and up_t = M up_s, N what the target reads to what the source does and M
    what the source returns to what the target does; the rank stays, and no matrix is formed.

    With maps by ridge this is the activation-anchored one, with rotations that of Procrustes.
    """

    def carry(self, update: Update, over: Crossing) -> Update:
        if over.reading is None or over.writing is None:
            raise NotApplicable(f"{self.name} needs maps of what both matrices read and return")
        up = over.writing.pushforward(update.up.mT).mT
        return Update(up.contiguous(), over.reading.pullback(update.down).contiguous())
