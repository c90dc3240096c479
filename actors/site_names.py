"""The names of places in a model: what kind of thing passes there, and in which block.

Shapes: e experts.
"""

from dataclasses import dataclass
from functools import total_ordering
from typing import Literal, cast, get_args

Kind = Literal["keys", "values", "attention", "router", "mlp", "residual"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order in which a block computes them
INJECTED = tuple(kind for kind in KINDS if kind != "router")  # to which something can be added


class SiteError(ValueError):
    """No such site, or nothing that fits there; one line says what is allowed."""


@total_ordering
@dataclass(frozen=True)
class Site:
    """What block `layer` leaves in the residual stream, what a part of it adds to the stream, or
    the keys (after any norm, before any rotary embedding) or values it computes, head by head; or
    its router's decision: for each of the e experts its weight, 0 where it was not chosen.

    Sites are ordered as the forward pass reaches them.
    """

    kind: Kind
    layer: int

    @classmethod
    def parse(cls, text: str) -> "Site":
        """From `kind.layer`, for example `residual.12`; the first layer is 0."""
        kind, _, layer = text.partition(".")
        if kind not in KINDS or not (layer.isascii() and layer.isdigit()):
            raise SiteError(
                f"site {text!r}: write KIND.LAYER, where KIND is one of {', '.join(KINDS)} "
                "and LAYER counts from 0, for example residual.12"
            )
        return cls(cast(Kind, kind), int(layer))

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    def __lt__(self, other: "Site") -> bool:
        return (self.layer, KINDS.index(self.kind)) < (other.layer, KINDS.index(other.kind))
