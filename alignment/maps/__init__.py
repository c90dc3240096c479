"""Maps from one model's activations to another's, one file for each manner of bending."""

from alignment.maps.base import (
    KINDS,
    RECORD_FILE,
    WEIGHTS_FILE,
    Map,
    MapError,
    map_from_bytes,
)
from alignment.maps.bent import Mixture, Network
from alignment.maps.linear import Affine, Linear, LowRank

__all__ = [
    "KINDS",
    "RECORD_FILE",
    "WEIGHTS_FILE",
    "Affine",
    "Linear",
    "LowRank",
    "Map",
    "MapError",
    "Mixture",
    "Network",
    "map_from_bytes",
]
