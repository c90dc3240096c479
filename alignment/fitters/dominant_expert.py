"""Between dense and sparse: the map of the expert that has most of the rows."""

from dataclasses import dataclass

from torch import Tensor

from alignment.experts import Experts
from alignment.fitted import through_means
from alignment.fitters.routed import Routed
from alignment.maps import Affine


@dataclass(frozen=True)
class DominantExpert(Routed):
    """One of the maps of `routed`, used for every row: linear."""

    def mixed(self, experts: Experts, base: Tensor, pull: float) -> Affine:
        weight = experts.weights(base, pull)[int(experts.share.argmax())]
        return through_means(weight, experts.moments)
