"""Which layers of a target have a partner in a source, by how alike they are on the same rows.

Shapes: Ls source layers, Lt target layers.
"""

from dataclasses import dataclass

from torch import Tensor

from alignment.similarity import Similarity

ALIKE = 0.7  # debiased CKA from which on layers were asked to be partners
LEAST = 0.5  # of the target's layers: with fewer that have a partner nothing is carried


@dataclass(frozen=True)
class Coverage:
    """Shares of the target's layers whose best partner is alike enough.

    `above_null`: standardised CKA above the 95 % quantile of the largest of all pairs by chance.
    `standardised` and `raw`: CKA above 0.7. `alone` are the layers that have no partner above
    chance.
    """

    above_null: float
    standardised: float
    raw: float
    alone: tuple[int, ...]


def coverage(found: Similarity) -> Coverage:
    """Of the target that the columns of a similarity are."""
    best = found.cka.amax(0)  # [Lt]
    return Coverage(
        above_null=_share(best > found.null_95),
        standardised=_share(best > ALIKE),
        raw=_share(found.cka_raw.amax(0) > ALIKE),
        alone=tuple((best <= found.null_95).nonzero()[:, 0].tolist()),
    )


def _share(of: Tensor) -> float:
    return float(of.double().mean())
