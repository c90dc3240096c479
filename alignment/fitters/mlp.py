"""Ridge regression, and a small network on what it leaves.

Shapes: n sampled rows, ds source width, dt target width, k and m components of source and target,
h neurons, c candidates.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from alignment.fitted import FitError, Fitter, Part, error_added, through_means
from alignment.maps import Affine, Map, Network
from alignment.spectrum import Spectrum, column, components, covariances

RATE = 0.01
EPSILON = 1e-3  # of gradients of unit size: what is but rounding is not blown up to a step


@dataclass(frozen=True)
class Mlp(Fitter):
    """The map of `ridge`, and a hidden layer fitted to its residuals over the sampled rows.

    The network reads the first `components` of the source, each at unit variance, and writes as
    many of the target. It is trained on all sampled rows at once by AdamW (Loshchilov and Hutter
    2019), in float32, from seeded weights that do not depend on the rows or their order.

    Chosen on held-out folds are λ, the decay of the weights, and where to stop. `steps` count from
    1, the start, at which the network is zero and the map that of `ridge`: so what is chosen is
    never worse there than its base. The base is judged on all held-out rows, what the network adds
    to it on those of the sample.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda", "decay", "step")
    needs_rows: ClassVar[bool] = True

    lambdas: tuple[float, ...] = (1e-4, 1e-2, 1e-1)
    decays: tuple[float, ...] = (0.1, 3.0)
    steps: tuple[float, ...] = (1, 30, 60, 120)
    components: int = 64
    neurons: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.components, self.neurons) < 1:
            raise FitError(
                f"{self.name} needs at least one component and one neuron; "
                f"got {self.components} and {self.neurons}"
            )

    def learn(self, training: Part, *chosen: float) -> Affine | Network:
        value, decay, step = chosen
        problem = _Problem(training, self)
        base = through_means(problem.base(value), training.moments)
        if round(step) <= 1:
            return base
        start, wanted = problem.start(self), problem.residuals(base.weight.double(), training)
        scale = problem.scale(wanted)
        (found,) = _trained(start, problem.inputs(training), wanted / scale, decay, (step,))
        inner = found.layers.inner.double() @ problem.reads.mT
        inner_bias = found.layers.inner_bias.double() - inner @ training.moments.mean_x
        outer = scale * problem.writes @ found.layers.outer.double()
        offset = scale * problem.writes @ found.offset.double()
        base = Affine(base.weight, (base.bias.double() + offset).float())
        return Network.over(
            training.rows.x, base, inner.float(), inner_bias.float(), outer.float().contiguous()
        )

    def judge(self, training: Part, held: Part) -> Tensor:
        problem = _Problem(training, self)
        shrinks = problem.spectrum.ridge(column(self.lambdas))
        errors = problem.spectrum.squared_errors(held.moments, shrinks)
        start, seen, unseen = problem.start(self), problem.inputs(training), problem.inputs(held)
        found = []
        for (error, value), decay in product(zip(errors, self.lambdas, strict=True), self.decays):
            base = problem.base(value)
            wanted, left = problem.residuals(base, training), problem.residuals(base, held)
            scale = problem.scale(wanted)
            for network in _trained(start, seen, wanted / scale, decay, self.steps):
                added = scale * network.answer(unseen)
                found.append(error + error_added(added, left, held))
        return torch.stack(found)

    def facts(self, training: Part, learned: Map) -> dict[str, float]:
        neurons = len(learned.inner) if isinstance(learned, Network) else 0
        return {"sampled_rows": len(training.rows), "neurons": neurons}


class _Layers(NamedTuple):
    """inner [h, k], inner_bias [h], outer [m, h]."""

    inner: Tensor
    inner_bias: Tensor
    outer: Tensor

    def hidden(self, inputs: Tensor) -> Tensor:
        """[n, h] for inputs [n, k]."""
        return functional.gelu(functional.linear(inputs, self.inner, self.inner_bias))


class _Trained(NamedTuple):
    """Layers, and the offset [m] with which they say zero on average over the training rows."""

    layers: _Layers
    offset: Tensor

    def answer(self, inputs: Tensor) -> Tensor:
        """[n, m] for inputs [n, k]."""
        return functional.linear(self.layers.hidden(inputs), self.layers.outer, self.offset)


class _Problem:
    """What the network reads, and what it is to answer, in components of the training rows."""

    def __init__(self, training: Part, recipe: Mlp) -> None:
        self._moments = training.moments
        self.spectrum = Spectrum(training.moments)
        self._first = self.spectrum.vectors[:, : recipe.components]
        self.reads = self._first * self.spectrum.inverse[: recipe.components].sqrt()  # [ds, k]
        _, vectors = components(covariances(training.moments.swap())[0])
        self.writes = vectors[:, : recipe.components]  # [dt, m]

    def base(self, value: float) -> Tensor:
        """The weight [dt, ds] of ridge."""
        return self.spectrum.weight(self.spectrum.ridge(column([value]))[0])

    def start(self, recipe: Mlp) -> _Layers:
        """Neurons that look anywhere, drawn as features of the source, and that say nothing."""
        generator = torch.Generator().manual_seed(recipe.seed)
        drawn = torch.randn(recipe.neurons, len(self._first), generator=generator).double()
        width, zeros = self._first.shape[1], torch.zeros
        inner = (drawn @ self._first / width**0.5).float()
        m = self.writes.shape[1]
        return _Layers(inner, zeros(len(drawn)), zeros(m, len(drawn)))

    def inputs(self, part: Part) -> Tensor:
        """[n, k]"""
        return (part.rows.x - self._moments.mean_x.float()) @ self.reads.float()

    def residuals(self, base: Tensor, part: Part) -> Tensor:
        """[n, m] of what the base leaves of the target."""
        near_x = part.rows.x - self._moments.mean_x.float()
        near_y = part.rows.y - self._moments.mean_y.float()
        return near_y @ self.writes.float() - near_x @ (base.mT @ self.writes).float()

    def scale(self, residuals: Tensor) -> float:
        return float(residuals.square().mean().sqrt().clamp_min(torch.finfo().tiny))


def _trained(
    start: _Layers, inputs: Tensor, wanted: Tensor, decay: float, steps: tuple[float, ...]
) -> list[_Trained]:
    """The network before each of the steps, for inputs [n, k] and wanted [n, m] of unit size."""
    layers = _Layers(*(tensor.clone().requires_grad_() for tensor in start))
    groups = [
        {"params": [layers.inner, layers.outer], "weight_decay": decay},
        {"params": [layers.inner_bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, eps=EPSILON, fused=True)
    ends = [max(1, round(step)) for step in steps]
    reached: dict[int, _Trained] = {}
    for step in range(1, max(ends) + 1):
        hidden = layers.hidden(inputs)
        mean = hidden.mean(0)
        if step in ends:
            kept = _Layers(*(tensor.detach().clone() for tensor in layers))
            reached[step] = _Trained(kept, -kept.outer @ mean.detach())
        optimizer.zero_grad()
        missed = functional.linear(hidden - mean, layers.outer) - wanted
        missed.square().sum(1).mean().backward()
        optimizer.step()
    return [reached[end] for end in ends]
