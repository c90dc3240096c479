"""What models hold at a batch, and how it passes between those that are never loaded together: by
way of the store.

Shapes: n rows, d width of a site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import numpy as safetensors_numpy

from cluster.storage import Store

_ROWS = "rows"


class ShardLost(RuntimeError):
    """A batch came without those before it in its shard: the worker that had them has died."""


@dataclass(frozen=True, eq=False)
class Activations:
    """One model at the rows of one batch.

    `model` is its fingerprint, `batch` the id of the batch; `rows` are row ids int64 [n], the same
    places in the text for every model; `points` by site, float32 [n, d].
    """

    model: str
    batch: str
    rows: np.ndarray
    points: dict[str, np.ndarray]


@dataclass(frozen=True)
class Kept:
    """What one model holds at a batch, set down in the store: sites of it, and where."""

    model: str
    sites: tuple[str, ...]
    to: str


@dataclass(frozen=True)
class Exchange:
    """For models that are never loaded together: what is set down of a batch, and what taken up."""

    leave: tuple[Kept, ...] = ()
    take: tuple[Kept, ...] = ()


def shared_rows(source: Activations, target: Activations) -> tuple[np.ndarray, np.ndarray]:
    """Indices [n] into both of the rows that both models have, in the order of the text."""
    assert source.batch == target.batch, f"batches {source.batch} and {target.batch} do not meet"
    _, in_source, in_target = np.intersect1d(
        source.rows, target.rows, assume_unique=True, return_indices=True
    )
    return in_source, in_target


def exchanged(
    exchange: Exchange, activations: Sequence[Activations], store: Store
) -> dict[str, Activations]:
    """Every model at a batch, by fingerprint: those that are live, and those that are taken up.

    What is set down is set down first. What is taken up is of the batch that the live models read.
    """
    models = {each.model: each for each in activations}
    for kept in exchange.leave:
        held = models[kept.model]
        tensors = {_ROWS: held.rows, **{site: held.points[site] for site in kept.sites}}
        store.put(kept.to, safetensors_numpy.save(tensors))
    for kept in exchange.take:
        points = safetensors_numpy.load(store.get(kept.to))
        rows = points.pop(_ROWS)
        models[kept.model] = Activations(kept.model, activations[0].batch, rows, points)
    return models
