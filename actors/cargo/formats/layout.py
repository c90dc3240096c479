"""What a format of steering vectors is, and how layers are named in one.

Shapes: d width.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.cargo.vectors import SteeringVectors, VectorError
from actors.site_names import Site

_NUMBER = re.compile(r"-?\d+", re.ASCII)


@dataclass(frozen=True)
class Format:
    """How files of one format are called, told from others, read and written.

    `read` takes the layers of the model and the site that is wanted, as `read_vectors` does;
    `write` makes a new file. Both raise VectorError, without the name of the file.
    """

    suffix: str
    claims: Callable[[Path], bool]
    read: Callable[[Path, int, str | None], SteeringVectors]
    write: Callable[[SteeringVectors, Path], None]


def flat(name: str, values: np.ndarray) -> np.ndarray:
    """A vector [d] in float32, of numbers that may have axes of length 1 beside it."""
    if values.size != max(values.shape, default=0):
        raise VectorError(f"{name}: the vector must be flat, its shape is {values.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as Inf
        return values.reshape(-1).astype(np.float32)


def residual(number: str, layers: int) -> str:
    """The site of a layer; negative ones count from the last, which is -1."""
    if not _NUMBER.fullmatch(number):
        raise VectorError(f"layer {number!r} is no number")
    layer = int(number)
    if not -layers <= layer < layers:
        raise VectorError(f"layer {layer}: the model has layers 0 to {layers - 1} (-1 is the last)")
    return f"residual.{layer % layers}"


def by_site(named: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The vectors of sites, each there once only, in the order of the forward pass."""
    vectors: dict[str, np.ndarray] = {}
    for site, vector in named:
        if site in vectors:
            raise VectorError(f"{site} is there twice")
        vectors[site] = vector
    return {site: vectors[site] for site in sorted(vectors, key=Site.parse)}


def chosen(vectors: Mapping[str, np.ndarray], site: str | None) -> dict[str, np.ndarray]:
    """The vector of the wanted site alone; all of them where none is wanted."""
    if site is None:
        return dict(vectors)
    if site not in vectors:
        raise VectorError(f"no vector at {site}; there are: {', '.join(vectors)}")
    return {site: vectors[site]}


def layers_of(vectors: SteeringVectors, name: str) -> dict[int, np.ndarray]:
    """The vectors by layer, for a format that knows the residual stream only."""
    sites = {Site.parse(site): vector for site, vector in vectors.vectors.items()}
    if others := [str(site) for site in sites if site.kind != "residual"]:
        raise VectorError(
            f"format {name} has layers of the residual stream only, and no {', '.join(others)}; "
            "use isthmus"
        )
    return {site.layer: vector for site, vector in sites.items()}
