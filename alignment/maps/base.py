"""Maps from one model's activations to another's, and how they are stored.

Shapes: n rows, ds source width, dt target width.

Stored as safetensors, with a JSON record of what they are; a bitwise round trip. No code of ours
is needed to use a stored map: the record says in a formula what to do with the tensors.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor

from alignment.whole_file import whole_file

FORMAT = 1
RECORD_FILE = "map.json"
WEIGHTS_FILE = "map.safetensors"
_HEADER = "isthmus"


class MapError(ValueError):
    """A map that cannot be read, or that does not fit the one it is chained to."""


KINDS: dict[str, type[Map]] = {}  # filled as the kinds are imported, which the package does


class Map(ABC):
    """Carries points, directions and covectors from a source [.., ds] to a target [.., dt]."""

    kind: ClassVar[str]
    formula: ClassVar[str]  # how to use the tensors without any code of ours

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            KINDS[cls.kind] = cls

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
        return with_record(self.tensors(), self.record())

    def save(self, directory: Path) -> None:
        """Write map.safetensors and map.json (which holds its SHA-256, and is written last)."""
        weights = self.to_bytes()
        record = {**self.record(), "sha256": hashlib.sha256(weights).hexdigest()}
        with whole_file(directory / WEIGHTS_FILE) as file:
            file.write_bytes(weights)
        with whole_file(directory / RECORD_FILE) as file:
            file.write_text(_json(record) + "\n")

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


def map_from_bytes(data: bytes) -> Map:
    """Read what `Map.to_bytes` wrote. MapError when it is not such a file."""
    tensors, record = split_record(data)
    if record.get("format") != FORMAT or record.get("kind") not in KINDS:
        raise MapError(
            f"this file holds format {record.get('format')}, kind {record.get('kind')}; "
            f"only maps of format {FORMAT}, kind {' or '.join(KINDS)} can be read"
        )
    return KINDS[record["kind"]](**tensors)


def with_record(tensors: dict[str, Tensor], record: dict[str, Any]) -> bytes:
    """A safetensors file with a JSON record in its metadata."""
    return safetensors_torch.save(tensors, {_HEADER: _json(record)})


def split_record(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `with_record` put together; without a record it is empty.

    Raises:
        MapError: no whole safetensors file.
    """
    try:
        tensors = safetensors_torch.load(data)
    except SafetensorError as error:
        raise MapError(f"a map must be a whole safetensors file: {error}") from error
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return tensors, json.loads(metadata.get(_HEADER, "{}"))


def require_meeting(first: Map, second: Map) -> None:
    """MapError unless the second reads what the first writes."""
    if second.source_width != first.target_width:
        raise MapError(
            f"cannot chain maps: the first writes width {first.target_width}, "
            f"the second reads width {second.source_width}"
        )


def unchained(first: Map, second: Map) -> MapError:
    """What is raised where no one map is both."""
    return MapError(
        f"cannot chain maps of kind {first.kind} and {second.kind} into one: only linear maps can "
        "be; transform points by one after the other"
    )


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)
