"""Adapters carried by what they change in the residual stream, layer by layer.

What an adapter changes there on anchors is mapped to the target, to the layer at the same depth.
The matrix that writes last in a layer is changed by regression from what it reads to what is left
of that, after what the layers before it already make of theirs. Where a norm stands between that
matrix and the stream, as in Gemma, it is taken for what it multiplies each row and feature by.

Shapes: n rows, d width of the stream.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from actors.adapting import adapting
from actors.anchors import AnchorBatch, batches
from actors.exchange import Activations
from actors.matrix_reading import matrix_rows, sides
from alignment.layers import depth_pairing
from alignment.updates import Update
from benchmarks.adapter_carriers import (
    SHUFFLED,
    Carried,
    fitted,
    paired,
    rank_of,
    stream_reader,
)
from benchmarks.adapters import Model, Updates

BATCH = 8  # texts of a pass
# Ways, by those that their maps are fitted in.
WAYS = {"delta regression": "ridge", "delta regression, shuffled rows": SHUFFLED}
PLAIN, MOVED = "plain", "moved"
READ, WROTE, ADDED = "read", "wrote", "added"  # by the last matrix of a layer; to the stream
Read = Callable[[AnchorBatch], Activations]


def regressed(
    source: Model,
    target: Model,
    native: Mapping[str, Updates],
    anchors: Sequence[str],
    *,
    strength: float,
) -> Carried:
    """What the regression makes of the source's adapters, of their rank; and the control, whose
    maps are fitted to shuffled rows. Maps and regressions have penalties of this strength."""
    (shard,) = batches(anchors, shard_texts=len(anchors), batch_texts=BATCH)
    plain = [_stream(model, shard, {}) for model in (source, target)]
    found: Carried = {}
    for skill, updates in native.items():
        moved = _stream(source, shard, updates)
        for way, by in WAYS.items():
            made = _written(target, shard, plain, moved, rank_of(updates), strength, by)
            found.setdefault(way, {})[skill] = made
            print(target.facts.name, way, skill, "written", file=sys.stderr)
    return found


def _stream(model: Model, shard: Sequence[AnchorBatch], updates: Updates) -> dict[str, Activations]:
    """What every layer leaves in the stream, by batch."""
    read = stream_reader(model)
    with adapting(model.engine, updates):
        return {batch.id: read(batch) for batch in shard}


def _written(
    target: Model,
    shard: Sequence[AnchorBatch],
    plain: Sequence[Mapping[str, Activations]],
    moved: Mapping[str, Activations],
    rank: int,
    strength: float,
    by: str,
) -> dict[str, Update]:
    found: dict[str, Update] = {}
    source_layers = len(next(iter(moved.values())).points)
    for layer, other in enumerate(depth_pairing(source_layers, len(target.engine.blocks))):
        of_source = _of({PLAIN: plain[0], MOVED: moved}, f"residual.{other}")
        of_target = _now(target, found, plain[1], layer)
        mine, theirs = paired(shard, [of_source, of_target])
        over = fitted(by, mine[PLAIN], theirs[PLAIN], layer, strength)
        wanted = over.pushforward(mine[MOVED] - mine[PLAIN])
        left = wanted - (theirs[MOVED] - theirs[PLAIN])
        times, gain = scales(theirs[WROTE], theirs[ADDED])
        made = Update.regressed(theirs[READ], left / times, rank, strength)
        # A feature of which next to nothing is let through is left as it is.
        back = gain / (gain.square() + strength * gain.square().mean())
        found[f"down.{layer}"] = Update(back[:, None] * made.up, made.down)
    return found


def scales(wrote: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """What is multiplied with what a matrix writes [n, d] on its way into the stream [n, d], of
    each row [n, 1] and each feature [d]: all ones, or as an RMS norm between them does."""
    if added.equal(wrote):
        return added.new_ones(len(added), 1), added.new_ones(added.shape[1])
    times = wrote.square().mean(1, keepdim=True).rsqrt()
    even = wrote * times
    return times, (even * added).sum(0) / even.square().sum(0)


def _of(by_name: Mapping[str, Mapping[str, Activations]], site: str) -> Read:
    """What was read of one site before, by name."""

    def read(batch: AnchorBatch) -> Activations:
        of_batch = {name: each[batch.id] for name, each in by_name.items()}
        points = {name: each.points[site] for name, each in of_batch.items()}
        return replace(next(iter(of_batch.values())), points=points)

    return read


def _now(target: Model, updates: Updates, plain: Mapping[str, Activations], layer: int) -> Read:
    """The stream after a layer, plain and with these on; what the layer's last matrix reads and
    writes, and what is added to the stream of that."""
    place, site, mlp = f"down.{layer}", f"residual.{layer}", f"mlp.{layer}"

    def read(batch: AnchorBatch) -> Activations:
        with adapting(target.engine, updates):
            now = matrix_rows(
                target.engine, target.facts.fingerprint, batch, [place], sites=[mlp, site]
            )
        reads, writes = sides(place)
        points = {
            PLAIN: plain[batch.id].points[site],
            MOVED: now.points[site],
            READ: now.points[reads],
            WROTE: now.points[writes],
            ADDED: now.points[mlp],
        }
        return replace(now, points=points)

    return read
