"""The files of a PEFT directory, whatever it holds."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)


class AdapterError(ValueError):
    """What PEFT calls an adapter, and cannot be used; one line says why, and what can be."""


def read_config(directory: Path, kind: str) -> dict[str, Any]:
    """What it says of itself; it must be of this kind, in PEFT's word.

    Raises:
        AdapterError: it is no such directory, or of another kind.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(f"{directory} is no PEFT directory: it has no {CONFIG_FILE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != kind:
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterError(f"{directory}: its peft_type is {found}; {kind} can be carried")
    return config


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """What it holds, by name.

    Raises:
        AdapterError: it is not there, pickled or damaged.
    """
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        if (directory / PICKLED_FILE).is_file():
            raise AdapterError(
                f"{directory}: {PICKLED_FILE} is pickled and may run any code when it is read; "
                f"save it as {WEIGHTS_FILE}"
            )
        raise AdapterError(f"{directory} has no {WEIGHTS_FILE}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise AdapterError(f"{path} is damaged: {error}") from None


def matrix(directory: Path, name: str, tensor: Tensor) -> Tensor:
    """One of these as float32, which must be a matrix of finite numbers.

    Raises:
        AdapterError: it is none.
    """
    if tensor.ndim != 2:
        raise AdapterError(f"{directory}: {name} has {tensor.ndim} dimensions, a matrix has 2")
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise AdapterError(f"{directory}: {name} has NaN or Inf in it")
    return tensor
