"""What tests of files of steering vectors share: a model that they are for, and refusals."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from actors.cargo.formats import read_vectors
from actors.cargo.vectors import VectorError

LAYERS, WIDTH = 12, 5  # of the model that vectors are for


def drawn() -> dict[int, np.ndarray]:
    """Vectors of three layers."""
    rows = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    return dict(zip((2, 7, 11), rows, strict=True))


def sites(by_layer: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"residual.{layer}": vector for layer, vector in by_layer.items()}


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """The same sites, with the same bits."""
    return {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


def refusal(path: Path, site: str | None = None) -> str:
    """The one line with which a file is refused, without the file."""
    with pytest.raises(VectorError) as refused:
        read_vectors(path, LAYERS, site)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")
