"""Maps whose derivative is another at every point.

Shapes: n rows, ds source width, dt target width, h neurons, e experts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from alignment.maps.base import Map, require_meeting, unchained
from alignment.maps.linear import Affine


class Bent(Map):
    """Made of tensors, of which weight [.., dt, ds] has the widths; no chain of them is one map."""

    weight: Tensor

    @property
    def source_width(self) -> int:
        return self.weight.shape[-1]

    @property
    def target_width(self) -> int:
        return self.weight.shape[-2]

    def then(self, other: Map) -> Map:
        require_meeting(self, other)
        raise unchained(self, other)

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Network(Bent):
    """An affine map, and a network of one hidden layer on top, in float32.

    weight [dt, ds] and bias [dt]; inner [h, ds], inner_bias [h], outer [dt, h]. GELU is the exact
    one, z Φ(z) (Hendrycks and Gimpel 2016). `slope` [h] is its mean derivative at each neuron over
    points of the source: a direction is carried as the mean over them of the derivative. That is
    closed form, linear, and no promise for a step from any one point.
    """

    kind: ClassVar[str] = "network"
    formula: ClassVar[str] = (
        "y = x @ weight.T + bias + torch.nn.functional.gelu(x @ inner.T + inner_bias) @ outer.T"
    )

    weight: Tensor  # pyrefly: ignore[bad-override]  (frozen here, so only read)
    bias: Tensor
    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    slope: Tensor

    def __post_init__(self) -> None:
        (dt, ds), h = self.weight.shape, len(self.inner)
        shapes = {name: tuple(tensor.shape) for name, tensor in vars(self).items()}
        wanted = ((dt, ds), (dt,), (h, ds), (h,), (dt, h), (h,))
        assert tuple(shapes.values()) == wanted, f"shapes do not fit: {shapes}"
        assert all(t.dtype == torch.float32 for t in vars(self).values()), "kept in float32"

    @classmethod
    def over(
        cls, points: Tensor, base: Affine, inner: Tensor, inner_bias: Tensor, outer: Tensor
    ) -> Network:
        """With slopes that are means over points [n, ds]."""
        z = functional.linear(points, inner, inner_bias).double()
        derivative = torch.special.ndtr(z) + z * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
        return cls(base.weight, base.bias, inner, inner_bias, outer, derivative.mean(0).float())

    def record(self) -> dict[str, str | int]:
        return {**super().record(), "neurons": len(self.inner)}

    def transform(self, points: Tensor) -> Tensor:
        hidden = functional.gelu(functional.linear(points, self.inner, self.inner_bias))
        straight = functional.linear(points, self.weight, self.bias)
        return straight + functional.linear(hidden, self.outer)

    def pushforward(self, directions: Tensor) -> Tensor:
        hidden = functional.linear(directions, self.inner) * self.slope
        return functional.linear(directions, self.weight) + functional.linear(hidden, self.outer)

    def pullback(self, covectors: Tensor) -> Tensor:
        return covectors @ self.weight + (covectors @ self.outer * self.slope) @ self.inner


@dataclass(frozen=True, eq=False)
class Mixture(Bent):
    """Affine maps, one for each expert, mixed as a gate has it at each point, in float32.

    weight [e, dt, ds] and bias [e, dt]; gate [e, ds] and gate_bias [e]: the shares of the experts
    are the softmax of x @ gate.T + gate_bias (Jacobs et al. 1991). `slope` [dt, ds] is the mean
    derivative over points of the source, and carries directions as that of `Network` does.
    """

    kind: ClassVar[str] = "mixture"
    formula: ClassVar[str] = (
        "y = (torch.softmax(x @ gate.T + gate_bias, -1)[..., None] "
        "* (torch.einsum('...s,ets->...et', x, weight) + bias)).sum(-2)"
    )

    weight: Tensor  # pyrefly: ignore[bad-override]  (frozen here, so only read)
    bias: Tensor
    gate: Tensor
    gate_bias: Tensor
    slope: Tensor

    def __post_init__(self) -> None:
        e, dt, ds = self.weight.shape
        shapes = {name: tuple(tensor.shape) for name, tensor in vars(self).items()}
        wanted = ((e, dt, ds), (e, dt), (e, ds), (e,), (dt, ds))
        assert tuple(shapes.values()) == wanted, f"shapes do not fit: {shapes}"
        assert all(t.dtype == torch.float32 for t in vars(self).values()), "kept in float32"

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, gate: Tensor, gate_bias: Tensor) -> Mixture:
        """Whose slope is zero, until `over` takes it of points."""
        parts = (weight, bias, gate, gate_bias, torch.zeros_like(weight[0]))
        return cls(*(part.float().contiguous() for part in parts))

    def over(self, points: Tensor) -> Mixture:
        """With the slope that is the mean over points [n, ds]."""
        slope, reached = torch.zeros_like(self.slope), self.transform(points)
        parts = zip(self.shares(points).mT, self.weight, self.bias, self.gate, strict=True)
        for share, weight, bias, gate in parts:
            beyond = functional.linear(points, weight, bias) - reached
            slope += share.mean() * weight + torch.outer(share @ beyond / len(points), gate)
        return replace(self, slope=slope)

    def shares(self, points: Tensor) -> Tensor:
        """Of each expert at each point [n, e]; they sum to 1."""
        return functional.linear(points, self.gate, self.gate_bias).softmax(-1)

    def record(self) -> dict[str, str | int]:
        return {**super().record(), "experts": len(self.gate)}

    def transform(self, points: Tensor) -> Tensor:
        reached = points.new_zeros(*points.shape[:-1], self.target_width)
        # One expert after another: all at once would take e times the memory.
        for share, weight, bias in zip(
            self.shares(points).unbind(-1), self.weight, self.bias, strict=True
        ):
            reached = reached + share[..., None] * functional.linear(points, weight, bias)
        return reached

    def pushforward(self, directions: Tensor) -> Tensor:
        return functional.linear(directions, self.slope)

    def pullback(self, covectors: Tensor) -> Tensor:
        return covectors @ self.slope
