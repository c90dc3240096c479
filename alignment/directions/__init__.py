"""Ways to take a direction out of two sides: frozen dataclasses, one a file, named by the file."""

from alignment.contrast import Extractor
from alignment.directions.difference_of_means import DifferenceOfMeans
from alignment.directions.principal_difference import PrincipalDifference
from alignment.directions.probe import Probe

DIRECTIONS: dict[str, type[Extractor]] = {
    "difference_of_means": DifferenceOfMeans,
    "principal_difference": PrincipalDifference,
    "probe": Probe,
}

__all__ = ["DIRECTIONS"]
