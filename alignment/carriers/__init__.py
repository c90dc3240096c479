"""Carriers: ways to carry what is added to a matrix, one a file; the key is the file's name."""

from alignment.carriers.averaged import Averaged
from alignment.carriers.mapped import Mapped
from alignment.carriers.reordered import Reordered
from alignment.carriers.resized import Resized
from alignment.carriers.subspace import Subspace
from alignment.crossing import Carrier

CARRIERS: dict[str, type[Carrier]] = {
    "averaged": Averaged,
    "mapped": Mapped,
    "reordered": Reordered,
    "resized": Resized,
    "subspace": Subspace,
}

__all__ = ["CARRIERS"]
