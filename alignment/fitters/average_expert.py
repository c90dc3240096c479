"""Between dense and sparse: the mean of the experts' maps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.experts import Experts
from alignment.fitted import through_means
from alignment.fitters.routed import Routed
from alignment.maps import Affine


@dataclass(frozen=True)
class AverageExpert(Routed):
    """The maps of `routed`, each weighted by how much of the rows its expert has: linear."""

    def mixed(self, experts: Experts, base: Tensor, pull: float) -> Affine:
        weight = torch.einsum("e,ets->ts", experts.share, experts.weights(base, pull))
        return through_means(weight, experts.moments)
