"""Maps from one model's activations to another's, and how they are stored.

Shapes: n rows, ds source width, dt target width, r rank, h neurons.

Stored as safetensors, with a JSON record of what they are; a bitwise round trip. No code of ours
is needed to use a stored map: the record says in a formula what to do with the tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor
from torch.nn import functional

FORMAT = 1
RECORD_FILE = "map.json"
WEIGHTS_FILE = "map.safetensors"
_HEADER = "isthmus"


class MapError(ValueError):
    """A map that cannot be read, or that does not fit the one it is chained to."""


class Map(ABC):
    """Carries points, directions and covectors from a source [.., ds] to a target [.., dt]."""

    kind: ClassVar[str]
    formula: ClassVar[str]  # how to use the tensors without any code of ours

    @property
    @abstractmethod
    def source_width(self) -> int: ...

    @property
    @abstractmethod
    def target_width(self) -> int: ...

    @abstractmethod
    def transform(self, points: Tensor) -> Tensor:
        """Points [n, ds] -> [n, dt]."""

    @abstractmethod
    def pushforward(self, directions: Tensor) -> Tensor:
        """Differences of points [n, ds] -> [n, dt]: the derivative of transform, so no bias.

        Where the derivative is another at every point, it is the mean over points of the source.
        """

    @abstractmethod
    def pullback(self, covectors: Tensor) -> Tensor:
        """What reads the target [n, dt] -> what reads the source alike [n, ds]."""

    @abstractmethod
    def then(self, other: Map) -> Map:
        """This map followed by another. MapError when the widths do not meet, or no one map is
        both."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by the names that the kind is made with."""

    def record(self) -> dict[str, str | int]:
        """What this map is, as plain JSON."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "formula": self.formula,
            "source_width": self.source_width,
            "target_width": self.target_width,
        }

    def to_bytes(self) -> bytes:
        """A safetensors file with the record in its metadata."""
        return safetensors_torch.save(self.tensors(), {_HEADER: _json(self.record())})

    def save(self, directory: Path) -> None:
        """Write map.safetensors and map.json (which holds its SHA-256, and is written last)."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = self.to_bytes()
        record = {**self.record(), "sha256": hashlib.sha256(weights).hexdigest()}
        _write(directory / WEIGHTS_FILE, weights)
        _write(directory / RECORD_FILE, (_json(record) + "\n").encode())

    @staticmethod
    def load_map(directory: Path) -> Map:
        """Read what `save` wrote. MapError when a file is missing, altered or of another format."""
        try:
            record = json.loads((directory / RECORD_FILE).read_bytes())
            weights = (directory / WEIGHTS_FILE).read_bytes()
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise MapError(f"{directory} holds no map: {missing} is missing") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise MapError(f"{directory / RECORD_FILE} is not JSON: fetch the map again") from error
        if (
            not isinstance(record, dict)
            or record.get("sha256") != hashlib.sha256(weights).hexdigest()
        ):
            raise MapError(
                f"{directory / WEIGHTS_FILE} is not the file that {RECORD_FILE} describes "
                "(SHA-256 differs): fetch the map again"
            )
        return map_from_bytes(weights)


class Linear(Map):
    """A bias [dt], and a matrix [dt, ds] that is kept as the product of its factors."""

    bias: Tensor

    @property
    @abstractmethod
    def factors(self) -> tuple[Tensor, ...]:
        """Matrices whose product, in this order, is the matrix."""

    @property
    def matrix(self) -> Tensor:
        """The matrix [dt, ds], multiplied out in float64."""
        return _product(self.factors)

    @property
    def source_width(self) -> int:
        return self.factors[-1].shape[1]

    @property
    def target_width(self) -> int:
        return self.factors[0].shape[0]

    def transform(self, points: Tensor) -> Tensor:
        for factor in self.factors[:0:-1]:
            points = functional.linear(points, factor)
        return functional.linear(points, self.factors[0], self.bias)

    def pushforward(self, directions: Tensor) -> Tensor:
        return reduce(functional.linear, reversed(self.factors), directions)

    def pullback(self, covectors: Tensor) -> Tensor:
        return reduce(torch.matmul, self.factors, covectors)

    def then(self, other: Map) -> Linear:
        """Composed in float64, so that a chain of maps is rounded once a link.

        LowRank, at the smallest rank of a link, where either is LowRank; else Affine.
        """
        _require_meeting(self, other)
        if not isinstance(other, Linear):
            raise _unchained(self, other)
        links, meeting = (*other.factors, *self.factors), len(other.factors)
        bias = (_product((*other.factors, self.bias)) + other.bias.double()).float()
        cuts = [at for at in range(1, len(links)) if at != meeting]
        if not cuts:
            return Affine(_product(links).float(), bias)
        cut = min(cuts, key=lambda at: len(links[at]))
        return LowRank(_product(links[:cut]).float(), _product(links[cut:]).float(), bias)


@dataclass(frozen=True, eq=False)
class Affine(Linear):
    """y = x @ weight.T + bias, with weight [dt, ds] and bias [dt] in float32."""

    kind: ClassVar[str] = "affine"
    formula: ClassVar[str] = "y = x @ weight.T + bias"

    weight: Tensor
    bias: Tensor  # pyrefly: ignore[bad-override]  (frozen here, so only read)

    def __post_init__(self) -> None:
        assert self.weight.ndim == 2, f"weight {self.weight.shape} is no matrix"
        assert self.bias.shape == self.weight.shape[:1], f"bias {self.bias.shape} does not fit"
        assert self.weight.dtype == self.bias.dtype == torch.float32, "maps are kept in float32"

    @property
    def factors(self) -> tuple[Tensor, ...]:
        return (self.weight,)

    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}


@dataclass(frozen=True, eq=False)
class LowRank(Linear):
    """y = (x @ right.T) @ left.T + bias: left [dt, r], right [r, ds], bias [dt] in float32."""

    kind: ClassVar[str] = "low_rank"
    formula: ClassVar[str] = "y = (x @ right.T) @ left.T + bias"

    left: Tensor
    right: Tensor
    bias: Tensor  # pyrefly: ignore[bad-override]  (frozen here, so only read)

    def __post_init__(self) -> None:
        shapes = f"left {self.left.shape}, right {self.right.shape}, bias {self.bias.shape}"
        assert self.left.ndim == self.right.ndim == 2, f"{shapes}: no two matrices"
        assert self.left.shape[1] == self.right.shape[0], f"{shapes}: the ranks differ"
        assert self.bias.shape == self.left.shape[:1], f"{shapes}: the bias does not fit"
        assert all(t.dtype == torch.float32 for t in vars(self).values()), "kept in float32"

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def factors(self) -> tuple[Tensor, ...]:
        return (self.left, self.right)

    def record(self) -> dict[str, str | int]:
        return {**super().record(), "rank": self.rank}

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Network(Map):
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

    weight: Tensor
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

    @property
    def source_width(self) -> int:
        return self.weight.shape[1]

    @property
    def target_width(self) -> int:
        return self.weight.shape[0]

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

    def then(self, other: Map) -> Map:
        _require_meeting(self, other)
        raise _unchained(self, other)

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.contiguous() for name, tensor in vars(self).items()}


KINDS = {kind.kind: kind for kind in (Affine, LowRank, Network)}


def map_from_bytes(data: bytes) -> Map:
    """Read what `Map.to_bytes` wrote. MapError when it is not such a file."""
    try:
        tensors = safetensors_torch.load(data)
    except SafetensorError as error:
        raise MapError(f"a map must be a whole safetensors file: {error}") from error
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    record = json.loads(metadata.get(_HEADER, "{}"))
    if record.get("format") != FORMAT or record.get("kind") not in KINDS:
        raise MapError(
            f"this file holds format {record.get('format')}, kind {record.get('kind')}; "
            f"only maps of format {FORMAT}, kind {' or '.join(KINDS)} can be read"
        )
    return KINDS[record["kind"]](**tensors)


def _require_meeting(first: Map, second: Map) -> None:
    if second.source_width != first.target_width:
        raise MapError(
            f"cannot chain maps: the first writes width {first.target_width}, "
            f"the second reads width {second.source_width}"
        )


def _unchained(first: Map, second: Map) -> MapError:
    return MapError(
        f"cannot chain maps of kind {first.kind} and {second.kind} into one: only linear maps can "
        "be; transform points by one after the other"
    )


def _product(factors: Sequence[Tensor]) -> Tensor:
    """In float64, from the right: the last may be a vector."""
    return reduce(lambda right, left: left @ right, [f.double() for f in reversed(factors)])


def _json(record: dict[str, str | int]) -> str:
    return json.dumps(record, sort_keys=True)


def _write(path: Path, data: bytes) -> None:
    """Write aside in the same directory, then rename: never half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as aside:
        try:
            aside.write(data)
            aside.flush()
            os.fsync(aside.fileno())
            Path(aside.name).replace(path)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise
