"""Between dense and sparse: a map for each expert, mixed by a gate that reads the source."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from alignment.anatomy import Anatomy
from alignment.experts import Experts
from alignment.fitted import Fitter, Part, error_added, squared_error, through_means
from alignment.maps import Linear, Map, Mixture
from alignment.spectrum import column


@dataclass(frozen=True)
class Routed(Fitter):
    """A mixture of linear maps, conditioned on the decision of a router (Jacobs et al. 1991).

    Of two models of which one is sparse at least, the router is the target's, or else the
    source's. Each expert has the ridge map of all rows, corrected over the rows that the router
    gave it; a gate learns from the source what the router decides, and mixes them. Rows that are
    judged are routed by the gate, since no target is there to ask where a map is used.

    λ of the map of all rows, and the pull of each expert's towards it, are chosen on held-out
    folds; a large pull gives ridge regression. A direction is carried as the mean over the sampled
    rows of the derivative: one and the same for every token.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda", "pull")
    needs: ClassVar[str] = "a sparse model on one side"
    needs_rows: ClassVar[bool] = True
    needs_routes: ClassVar[bool] = True

    lambdas: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    pulls: tuple[float, ...] = (0.1, 1.0, 10.0, 1000.0)
    decay: float = 1e-2
    sparse: bool = True

    @classmethod
    def between(cls, source: Anatomy, target: Anatomy) -> Self:
        return cls(sparse=source.sparse or target.sparse)

    def applies(self, source_width: int, target_width: int) -> bool:
        return self.sparse and super().applies(source_width, target_width)

    def learn(self, training: Part, *chosen: float) -> Map:
        value, pull = chosen
        experts = Experts(training, self.decay)
        found = self.mixed(experts, experts.base(value), pull)
        return found.over(training.rows.x) if isinstance(found, Mixture) else found

    def judge(self, training: Part, held: Part) -> Tensor:
        experts = Experts(training, self.decay)
        shrinks = experts.spectrum.ridge(column(self.lambdas))
        of_base = experts.spectrum.squared_errors(held.moments, shrinks)
        errors = []
        for error, value in zip(of_base, self.lambdas, strict=True):
            base = experts.base(value)
            plain = through_means(base, training.moments)
            for pull in self.pulls:
                found = self.mixed(experts, base, pull)
                if isinstance(found, Linear):
                    errors.append(squared_error(found, held.moments))
                else:
                    reached = plain.transform(held.rows.x)
                    added = found.transform(held.rows.x) - reached
                    left = held.rows.y - reached
                    errors.append(float(error) + error_added(added, left, held))
        return torch.tensor(errors, dtype=torch.float64)

    def mixed(self, experts: Experts, base: Tensor, pull: float) -> Map:
        """One map of those of the experts, which are pulled towards the base [dt, ds]."""
        if len(experts.share) == 1:
            return through_means(base, experts.moments)
        weights = experts.weights(base, pull)
        return Mixture.of(weights, experts.biases(base, weights, pull), *experts.gate)

    def facts(self, training: Part, learned: Map) -> dict[str, float]:
        del learned  # what is told is of the rows
        share = Experts(training, self.decay).share
        return {
            "sampled_rows": len(training.rows),
            "experts": len(share),
            "largest_share": float(share.max()),
        }
