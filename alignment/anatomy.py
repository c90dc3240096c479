"""What a fitter may know of the model on either side of a map: plain facts, and no weights."""

from dataclasses import dataclass
from typing import Literal

STREAM = ("residual", "attention", "mlp")  # kinds of site that are, or add to, the residual stream
CACHE = ("keys", "values")  # kinds of site that hold a vector for each KV head


@dataclass(frozen=True)
class Anatomy:
    """One model, and the kind of its site that is mapped. Widths in elements.

    `width` is that of the residual stream, whatever the site. `activation` is in lower case:
    swiglu and geglu are gated. `sparse` has experts; `up_scaled` repeats the layers of a smaller
    model, which is a matter of which layers are paired: no map depends on it.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    norm: Literal["rms", "layer"]
    activation: str
    sparse: bool = False
    up_scaled: bool = False
    site: str = "residual"
