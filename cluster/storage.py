"""Content-addressed blobs: a unit of work is done if and only if its output's address exists."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)

_MAGIC = b"isthmus blob 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


class CorruptBlob(ValueError):
    """A stored blob is not what was written: the one line names the file and the cure."""


def address(*parts: JsonValue) -> str:
    """The address of what `parts` describe: sha256 (64 hex digits) of their canonical JSON.

    Keys are sorted, so the order of a mapping does not matter; the order of the parts does. An int
    and a float of the same value (1 and 1.0) are different. Raises ValueError for NaN and infinity.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """A directory of blobs shared by the driver and its actors (several processes at once).

    The object holds nothing but the path, so it can be sent anywhere the directory can be seen.
    Below `root`: `blobs/ab/abcd...` are the finished blobs, `aside/` holds files being written;
    what a killed process left in `aside/` is never read and may be deleted while nothing runs.
    """

    root: Path

    def path(self, address: str) -> Path:
        """Where the blob of this address is, or would be."""
        assert len(address) == 64, address
        return self.root / "blobs" / address[:2] / address

    def has(self, address: str) -> bool:
        """Whether the work of this address is done."""
        return self.path(address).is_file()

    def put(self, address: str, data: bytes) -> None:
        """Store `data` whole or not at all. An address already there is left as it is."""
        path = self.path(address)
        if path.is_file():
            return
        aside = self.root / "aside" / f"{address}.{uuid.uuid4().hex}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("xb") as file:
                file.write(_MAGIC)
                file.write(hashlib.sha256(data).digest())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # Last writer wins, with the same bytes: readers see no file or a whole one.
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)

    def get(self, address: str) -> bytes:
        """The bytes that were put. Raises CorruptBlob, or FileNotFoundError where nothing is."""
        path = self.path(address)
        content = path.read_bytes()
        start = len(_MAGIC) + _DIGEST_BYTES
        data = content[start:]
        if content[:start] != _MAGIC + hashlib.sha256(data).digest():
            raise CorruptBlob(f"{path} is damaged: delete this file and run again")
        return data


def sync_directory(directory: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
