"""The head of a GGUF file: what it says it is, and whether all of it is there.

Read before the minute-long conversion is begun, so that a damaged file is named at once. The layout
is that of GGUF versions 2 and 3 (little-endian).
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES

from actors.catalog import ModelError

Scalar = int | float | bool | str

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_FIXED = {
    code: struct.Struct(f"<{letter}")
    for code, letter in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_BLOCKS = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
_COUNT, _WORD = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class GgufHeader:
    """Metadata that are single values (arrays are skipped), and how long the file has to be."""

    metadata: dict[str, Scalar]
    tensors: int
    length: int  # bytes up to the end of the last tensor

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the family, as in `llama` or `gemma3`."""
        return str(self.metadata.get("general.architecture", ""))


def read_header(path: Path, label: str) -> GgufHeader:
    """Read and check the head of a GGUF file; `label` is what people call it.

    Raises:
        ModelError: not a GGUF file, a version that is not known, truncated, or damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ModelError(f"{label} is not a GGUF file (it does not begin with GGUF)")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header = _Reader(data).header(label)
            except (struct.error, UnicodeDecodeError, KeyError, IndexError) as error:
                raise ModelError(f"{label} is truncated or damaged within its header") from error
    if header.length > size:
        raise ModelError(
            f"{label} is truncated: {size} bytes are there, its header announces {header.length}"
        )
    return header


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = len(_MAGIC)

    def header(self, label: str) -> GgufHeader:
        version = self.number(_WORD)
        if version not in _VERSIONS:
            raise ModelError(f"{label} is GGUF version {version}; versions 2 and 3 can be read")
        tensors, entries = self.number(_COUNT), self.number(_COUNT)
        metadata: dict[str, Scalar] = {}
        for _ in range(entries):
            key = self.string()
            value = self.value(self.number(_WORD))
            if value is not None:
                metadata[key] = value
        ends = [self.tensor_end() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
        start = -(-self.at // alignment) * alignment
        return GgufHeader(metadata, tensors, start + max(ends, default=0))

    def number(self, layout: struct.Struct) -> int:
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def string(self) -> str:
        length = self.number(_COUNT)
        end = self.at + length
        if end > len(self.data):
            raise IndexError("a string that ends beyond the file")
        value = self.data[self.at : end].decode("utf-8")
        self.at = end
        return value

    def value(self, kind: int) -> Scalar | None:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            self.skip_array()
            return None
        return self.number(_FIXED[kind])

    def skip_array(self) -> None:
        kind, count = self.number(_WORD), self.number(_COUNT)
        if kind in _FIXED:
            self.at += count * _FIXED[kind].size
            return
        for _ in range(count):
            if kind == _STRING:
                length = self.number(_COUNT)
                self.at += length
            elif kind == _ARRAY:
                self.skip_array()
            else:
                raise KeyError(kind)

    def tensor_end(self) -> int:
        self.string()
        elements = 1
        for _ in range(self.number(_WORD)):
            elements *= self.number(_COUNT)
        block, block_bytes = _BLOCKS[self.number(_WORD)]
        return self.number(_COUNT) + elements // block * block_bytes
