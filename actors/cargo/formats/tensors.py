"""What is common to formats that are safetensors: how they are told, and read in any precision."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from actors.cargo.vectors import VectorError

_LENGTH = 8  # bytes in which a file says how long its header is


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and the header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        return file.read(1) == b"{" and length <= path.stat().st_size - _LENGTH


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a file that `is_safetensors`; empty where its header is damaged."""
    with path.open("rb") as file:
        head = file.read(int.from_bytes(file.read(_LENGTH), "little"))
    try:
        return json.loads(head).get("__metadata__", {})
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every tensor in float64 or float32, and the metadata.

    Raises VectorError where the file is damaged, or a tensor has no floating point.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise VectorError(f"damaged safetensors: {str(error).splitlines()[0]}") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise VectorError(f"{name} is of {tensor.dtype}, which has no floating point")
    wide = {name: t if t.dtype == torch.float64 else t.float() for name, t in tensors.items()}
    return {name: tensor.numpy() for name, tensor in wide.items()}, metadata
