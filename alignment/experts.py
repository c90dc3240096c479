"""One linear map for each expert of a sparse model, and what tells from a row whose turn it is.

Shapes: n sampled rows, ds source width, dt target width, e experts.
"""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from alignment.fitted import Part
from alignment.moments import Moments
from alignment.samples import Sample
from alignment.spectrum import Spectrum, column

MOST_STEPS = 200  # of L-BFGS, which ends by itself long before


def routes(rows: Sample) -> Tensor | None:
    """What share of each row is each expert's [n, e], of the target's experts or else the source's.

    None where both sides are dense.
    """
    weights = rows.y_routes if rows.y_routes is not None else rows.x_routes
    if weights is None:
        return None
    # A router may leave some of its weight to experts that are not chosen (Qwen2-MoE).
    weights = weights.double().clamp_min(0)
    return weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo().tiny)


class Gate(NamedTuple):
    """Shares are the softmax of x @ weight.T + bias: weight [e, ds], bias [e]."""

    weight: Tensor
    bias: Tensor


class Experts:
    """The maps of each expert's rows, pulled towards the one of all rows."""

    def __init__(self, training: Part, decay: float) -> None:
        self.moments = training.moments
        self._rows, self._routes, self._decay = training.rows, routes(training.rows), decay

    @cached_property
    def spectrum(self) -> Spectrum:
        """Of all rows."""
        return Spectrum(self.moments)

    def base(self, value: float) -> Tensor:
        """The weight [dt, ds] of ridge regression over all rows."""
        return self.spectrum.weight(self.spectrum.ridge(column([value]))[0])

    @cached_property
    def share(self) -> Tensor:
        """How much of the rows each expert has [e]; one has all of them where both are dense."""
        if self._routes is None:
            return torch.ones(1, dtype=torch.float64)
        return self._routes.mean(0)

    def weights(self, base: Tensor, pull: float) -> Tensor:
        """[e, dt, ds]: least squares over an expert's rows, penalty `pull` on leaving the base."""
        if not self._parts:
            return base[None]
        found = []
        for part in self._parts:
            left = part.projected - part.values[:, None] * (base @ part.vectors).mT
            shrink = part.ridge(column([pull]))[0]
            found.append(base + (part.vectors @ (shrink[:, None] * left)).mT)
        return torch.stack(found)

    def biases(self, base: Tensor, weights: Tensor, pull: float) -> Tensor:
        """[e, dt]: the mean row of an expert goes to the mean of what it is beside.

        As far as `pull` lets it: 1 / (1 + pull) of the way there from where the base sends it.
        """
        offset = self.moments.mean_y - base @ self.moments.mean_x
        found = []
        for weight, sums in zip(weights, self._sums, strict=True):
            left = sums.mean_y - base @ sums.mean_x - offset
            found.append(offset - (weight - base) @ sums.mean_x + left / (1 + pull))
        return torch.stack(found)

    @cached_property
    def gate(self) -> Gate:
        """Whose turn it is, learned from source rows by multinomial logistic regression.

        On whitened features, with penalty decay / 2 * ‖weight‖² there; convex, so that neither a
        start nor the order of rows matters.
        """
        assert self._routes is not None, "no router to learn from"
        whiten = self.spectrum.vectors * self.spectrum.inverse.sqrt()  # [ds, ds]
        mean = self.moments.mean_x
        inputs = (self._rows.x.double() - mean) @ whiten
        weight = torch.zeros(len(self.share), inputs.shape[1], dtype=torch.float64)
        bias = torch.zeros(len(self.share), dtype=torch.float64)
        optimizer = torch.optim.LBFGS(
            (weight.requires_grad_(), bias.requires_grad_()),
            max_iter=MOST_STEPS,
            tolerance_grad=1e-9,
            line_search_fn="strong_wolfe",
        )

        def missed() -> Tensor:
            optimizer.zero_grad()
            logits = functional.linear(inputs, weight, bias)
            penalty = self._decay / 2 * weight.square().sum()
            loss = functional.cross_entropy(logits, self._routes) + penalty
            loss.backward()
            return loss

        optimizer.step(missed)
        found = weight.detach() @ whiten.mT
        return Gate(found, bias.detach() - found @ mean)

    @cached_property
    def _sums(self) -> list[Moments]:
        if self._routes is None:
            return []
        x, y = self._rows.x, self._rows.y
        # An expert without rows has those of all.
        shares = (share if share.sum() > 1 else torch.ones_like(share) for share in self._routes.mT)
        return [Moments.of(x, y, share) for share in shares]

    @cached_property
    def _parts(self) -> list[Spectrum]:
        return [Spectrum(sums) for sums in self._sums]
