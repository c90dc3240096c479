"""A checkpoint directory: is it whole, is it what was written, and what is the model in it.

Only config.json, the tokenizer and safetensors are read; a checkpoint that needs pickle is refused.
A directory that this project wrote carries isthmus.json: the SHA-256 of its files and the model's
fingerprint. All of it is read from the heads of the files unless one of them changed.
"""

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from actors.blueprint import Shape, blueprint
from actors.catalog import Dtype, ModelError, ModelFacts

RECORD = "isthmus.json"
FORMAT = 1  # of the record, of the fingerprint and of what a conversion writes

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
# Of config.json: what says how the file was written rather than what the model is.
_NOT_THE_MODEL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
_LENGTH = struct.Struct("<Q")
_ITEMSIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


class _Tensor(NamedTuple):
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Stored:
    """A tensor in a file of a checkpoint; `itemsize` in bytes."""

    file: str
    key: str
    shape: tuple[int, ...]
    itemsize: int


def stored_tensors(checkpoint: Path) -> list[Stored]:
    """Every tensor of a checkpoint directory, from the heads of its files.

    Raises:
        ModelError: see `check`.
    """
    return [
        Stored(file.name, key, tensor.shape, _ITEMSIZES[tensor.dtype])
        for file in _weight_files(checkpoint)
        for key, tensor in _tensors(file).items()
    ]


def lacks(weights: Iterable[str]) -> str:
    """The end of an error line: weights that are not there, the first by name."""
    first, *more = sorted(weights)
    return f"lacks the weights {first}" + (f" and {len(more)} more" if more else "")


def check(checkpoint: Path) -> str:
    """Make sure that a directory is a checkpoint that can be read here; returns its family.

    Raises:
        ModelError: no directory, no config.json, weights missing, truncated or pickled only.
    """
    if not checkpoint.is_dir():
        raise ModelError(f"{checkpoint} is not a directory")
    family = _config(checkpoint).get("model_type")
    if not isinstance(family, str):
        raise ModelError(f"{checkpoint}/config.json names no model_type")
    for file in _weight_files(checkpoint):
        for _ in _tensors(file):
            pass
    return family


def write_record(checkpoint: Path, source_sha256: str) -> None:
    """Write isthmus.json for the files that are in the directory now, and flush all to disk."""
    files = {}
    for path in sorted(checkpoint.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.name] = {"sha256": digest, **_stamp(path)}
    record = {
        "format": FORMAT,
        "source_sha256": source_sha256,
        "fingerprint": _fingerprint(checkpoint),
        "files": files,
    }
    with (checkpoint / RECORD).open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def verify(checkpoint: Path) -> None:
    """Compare a directory with its isthmus.json, if it has one.

    Files whose size and time of change are those recorded are taken as they are; others are read
    in full.

    Raises:
        ModelError: a file is missing or is not what was written, or the record cannot be read.
    """
    if not (checkpoint / RECORD).is_file():
        return
    cure = f"delete {checkpoint} and run again"
    for name, known in _record(checkpoint)["files"].items():
        path = checkpoint / name
        if not path.is_file():
            raise ModelError(f"{path} is missing: {cure}")
        if _stamp(path) == {"size": known["size"], "mtime_ns": known["mtime_ns"]}:
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known["sha256"]:
                raise ModelError(f"{path} is not what was written (its SHA-256 differs): {cure}")


def facts(checkpoint: Path, name: str, dtype: Dtype = "float32") -> ModelFacts:
    """The plain facts of the model in a checkpoint directory, `dtype` being what it computes in.

    Cheap for a directory with isthmus.json; else every weight is read once a process.

    Raises:
        ModelError: see `check`.
    """
    # Not at the top: it takes seconds to import, and the rest of this module does without.
    from transformers import AutoConfig

    check(checkpoint)
    # With every default of the family written out.
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True).to_dict()
    shape = blueprint(config)
    stored = (tensor for file in _weight_files(checkpoint) for tensor in _tensors(file).values())
    return ModelFacts(
        **shape.model_dump(include=set(Shape.model_fields)),
        name=name,
        parameters=sum(prod(tensor.shape) for tensor in stored),
        fingerprint=hashlib.sha256(f"{fingerprint(checkpoint)} {dtype}".encode()).hexdigest(),
        dtype=dtype,
        norm=shape.norm,
        activation=shape.activation,
        sparse=shape.experts is not None,
    )


def fingerprint(checkpoint: Path) -> str:
    """SHA-256 over weights, configuration and tokenizer.

    Taken from isthmus.json where there is one. Blind to how the weights are spread over files, and
    to what config.json says of how it was written.
    """
    if (checkpoint / RECORD).is_file():
        return _record(checkpoint)["fingerprint"]
    stamps = tuple(tuple(_stamp(path).values()) for path in _fingerprinted(checkpoint))
    return _remembered_fingerprint(checkpoint, stamps)


@lru_cache(maxsize=64)
def _remembered_fingerprint(checkpoint: Path, stamps: tuple[tuple[int, ...], ...]) -> str:
    del stamps  # part of the key: a changed file is read again
    return _fingerprint(checkpoint)


def _fingerprint(checkpoint: Path) -> str:
    config = {k: v for k, v in _config(checkpoint).items() if k not in _NOT_THE_MODEL}
    parts: list[object] = [FORMAT, config]
    for path in _tokenizer_files(checkpoint):
        parts.append([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
    tensors = {
        name: tensor
        for file in _weight_files(checkpoint)
        for name, tensor in _tensors(file).items()
    }
    for name, tensor in sorted(tensors.items()):
        parts.append([name, tensor.dtype, tensor.shape, _tensor_sha256(tensor)])
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _tensor_sha256(tensor: _Tensor) -> str:
    if tensor.start == tensor.end:
        return hashlib.sha256().hexdigest()
    with (
        tensor.file.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
        view[tensor.start : tensor.end] as content,
    ):
        return hashlib.sha256(content).hexdigest()


def _tensors(file: Path) -> dict[str, _Tensor]:
    """What a safetensors file says it holds, checked against the file's length."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else size
        if _LENGTH.size + length > size:
            raise ModelError(f"{file} is truncated or not a safetensors file")
        try:
            header: dict[str, Any] = json.loads(opened.read(length))
        except ValueError as error:
            raise ModelError(f"{file} is not a safetensors file: its header is damaged") from error
    header.pop("__metadata__", None)
    base = _LENGTH.size + length
    tensors = {
        name: _Tensor(
            file,
            entry["dtype"],
            tuple(entry["shape"]),
            base + entry["data_offsets"][0],
            base + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    }
    needed = max((tensor.end for tensor in tensors.values()), default=base)
    if needed != size:
        raise ModelError(f"{file} is truncated: {size} bytes are there, its header says {needed}")
    return tensors


def _weight_files(checkpoint: Path) -> list[Path]:
    index = checkpoint / _INDEX
    if (checkpoint / _WHOLE).is_file():
        return [checkpoint / _WHOLE]
    if not index.is_file():
        pickled = sorted(path.name for pattern in _PICKLED for path in checkpoint.glob(pattern))
        if pickled:
            raise ModelError(
                f"{checkpoint} has its weights in {pickled[0]} only: pickle is never read, "
                "save it as safetensors"
            )
        raise ModelError(f"{checkpoint} has neither {_WHOLE} nor {_INDEX}")
    files = sorted({checkpoint / name for name in read_json(index)["weight_map"].values()})
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is missing, though {_INDEX} names it")
    return files


def _tokenizer_files(checkpoint: Path) -> list[Path]:
    return [checkpoint / name for name in _TOKENIZER if (checkpoint / name).is_file()]


def _fingerprinted(checkpoint: Path) -> Iterator[Path]:
    yield checkpoint / "config.json"
    yield from _tokenizer_files(checkpoint)
    yield from _weight_files(checkpoint)


def _config(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "config.json"
    if not path.is_file():
        raise ModelError(f"{checkpoint} is not a checkpoint: it has no config.json")
    return read_json(path)


def _record(checkpoint: Path) -> dict[str, Any]:
    record = read_json(checkpoint / RECORD)
    if record.get("format") != FORMAT:
        raise ModelError(
            f"{checkpoint / RECORD} has format {record.get('format')}, {FORMAT} is known: "
            f"delete {checkpoint} and run again"
        )
    return record


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError where it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged: it is not JSON") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it is not a JSON object")
    return value


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
