"""Adapters carried matrix by matrix: what carriers are told of two models, and what they make.

Each source layer gives all of its change to the two target layers at its depth. Maps of what
matrices read and return are fitted to anchors, which have nothing to do with any skill.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from actors.anchors import AnchorBatch, batches
from actors.exchange import Activations
from actors.matrices import places, weight
from actors.matrix_reading import matrix_rows, sides
from actors.reading import activations
from alignment.carriers import CARRIERS
from alignment.crossing import Crossing
from alignment.fitted import Part
from alignment.fitters import FITTERS
from alignment.layers import depth_pairing, layer_shares
from alignment.maps import Map
from alignment.moments import Moments
from alignment.samples import Sample
from alignment.updates import Update
from benchmarks.adapters import Model, Updates

FOLDED = 10  # target layers whose rows are held at once: each time all texts are read again
SHUFFLED = "ridge, shuffled rows"
# Ways that go through maps, by the fitter of these.
MAPPED = {each: each for each in ("ridge", "procrustes", "anchor_locked")} | {SHUFFLED: "ridge"}
OF_THE_STREAM = ("attention", "mlp", "out", "down")  # sides, by what is read and who writes
OF_WEIGHTS = ("averaged", "resized", "subspace")
ALONE = ("averaged", "resized")  # a layer is made of the one at its depth alone

Carried = dict[str, dict[str, dict[str, Update]]]  # by way, skill and place


def carried(
    source: Model,
    target: Model,
    native: Mapping[str, Updates],
    anchors: Sequence[str],
    ways: Sequence[str] = (*OF_WEIGHTS, *MAPPED),
    *,
    strength: float,
) -> Carried:
    """What each way makes of the source's adapters, of the rank of these at most; ridge has a
    penalty of this strength."""
    depths = len(source.engine.blocks), len(target.engine.blocks)
    nearest = depth_pairing(*depths)
    here, there = places(source.engine), places(target.engine)
    parts: dict[tuple[str, str, str], list[Update]] = defaultdict(list)
    for link in _links(source, target, anchors):
        pairs = {
            role: Crossing(
                weight(source.engine, here[f"{role}.{link.source}"]),
                weight(target.engine, there[f"{role}.{link.target}"]),
            )
            for role in link.roles
        }
        maps: dict[tuple[str, str], Map] = {}  # several ways may go through the same
        for way in ways:
            if way in ALONE and link.source != nearest[link.target]:
                continue
            for role, pair in _told(way, link, pairs, maps, strength).items():
                updates = {skill: of[f"{role}.{link.source}"] for skill, of in native.items()}
                share = 1.0 if way in ALONE else link.share
                for skill, part in _each(way, updates, pair).items():
                    place = f"{role}.{link.target}"
                    parts[way, skill, place].append(part.scaled(share))
    found: Carried = defaultdict(lambda: defaultdict(dict))
    for (way, skill, place), some in parts.items():
        rank = rank_of(native[skill])
        found[way][skill][place] = Update.total(some).rounded(rank)
    return found


def rank_of(updates: Updates) -> int:
    """The largest of an adapter."""
    return max(each.rank for each in updates.values())


@dataclass(frozen=True, eq=False)
class _Link:
    """A source layer and a target layer that takes a share of its change; the roles that both have,
    and rows of what they read and return, by side, [n, d]."""

    source: int
    target: int
    share: float
    roles: Sequence[str]
    reads_of: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]

    def rows(self, role: str) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Both sides of the target's matrix, each with rows of where its map begins and ends."""
        mine, theirs = sides(f"{role}.{self.target}"), sides(f"{role}.{self.source}")
        source, target = self.reads_of
        yield mine[0], target[mine[0]], source[theirs[0]]
        yield mine[1], source[theirs[1]], target[mine[1]]


def _links(source: Model, target: Model, anchors: Sequence[str]) -> Iterator[_Link]:
    depths = len(source.engine.blocks), len(target.engine.blocks)
    shares = layer_shares(*depths)
    there = places(target.engine)
    roles = [
        name.removesuffix(".0")
        for name, at in places(source.engine).items()
        if name.endswith(".0") and at.expert is None and name in there
    ]
    (shard,) = batches(anchors, shard_texts=len(anchors), batch_texts=8)
    for start in range(0, depths[1], FOLDED):
        mine = range(start, min(start + FOLDED, depths[1]))
        theirs = sorted({each for layer in mine for each in shares[layer]})
        both = _rows(source, target, shard, roles, theirs, mine)
        for layer in mine:
            for other, share in shares[layer].items():
                yield _Link(other, layer, share, roles, both)
            print(f"layer {layer} of {depths[1]}", file=sys.stderr)


def _told(
    way: str,
    link: _Link,
    pairs: Mapping[str, Crossing],
    maps: dict[tuple[str, str], Map],
    strength: float,
) -> dict[str, Crossing]:
    """What a way is told of the matrices of each role; maps that it needs are added to those that
    are there, by fitter and side."""
    if way in OF_WEIGHTS:
        return dict(pairs)
    found = {}
    for role, pair in pairs.items():
        through = []
        for side, x, y in link.rows(role):
            by = _by(way, side)
            if (by, side) not in maps:
                maps[by, side] = fitted(by, x, y, link.target, strength)
            through.append(maps[by, side])
        reading, writing = through
        found[role] = Crossing(pair.source, pair.target, reading, writing)
    return found


def _by(way: str, side: str) -> str:
    """Anchors are locked where a matrix reads or writes the stream, which is what they are anchors
    of; inside a block their rounds of factorising would take hours."""
    _, part, _ = side.split(".")
    return "procrustes" if way == "anchor_locked" and part not in OF_THE_STREAM else way


def fitted(way: str, x: Tensor, y: Tensor, seed: int, strength: float) -> Map:
    """From rows of one model [n, d] to those of another, by the fitter of a way."""
    if way == SHUFFLED:
        y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    fitter = MAPPED[way]
    chosen = (strength,) if fitter == "ridge" else ()
    return FITTERS[fitter]().learn(Part(Moments.of(x, y), Sample.of(x, y)), *chosen)


def _each(way: str, updates: Mapping[str, Update], pair: Crossing) -> dict[str, Update]:
    """Of each skill. All but `averaged` carry every column alone, and so all skills at once."""
    carrier = CARRIERS[way if way in OF_WEIGHTS else "mapped"]()
    if way == "averaged":
        return {skill: carrier.carry(update, pair) for skill, update in updates.items()}
    together = carrier.carry(Update.total([*updates.values()]), pair)
    ranks = [each.rank for each in updates.values()]
    both = zip(together.up.split(ranks, 1), together.down.split(ranks), strict=True)
    return {skill: Update(*of) for skill, of in zip(updates, both, strict=True)}


def _rows(
    source: Model,
    target: Model,
    shard: Sequence[AnchorBatch],
    roles: Sequence[str],
    theirs: Sequence[int],
    mine: Sequence[int],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    reads = [
        partial(
            matrix_rows,
            model.engine,
            model.facts.fingerprint,
            wanted=[f"{role}.{layer}" for layer in layers for role in roles],
        )
        for model, layers in ((source, theirs), (target, mine))
    ]
    return paired(shard, reads)


def stream_reader(model: Model) -> Callable[[AnchorBatch], Activations]:
    """Reads what every layer leaves in the residual stream."""
    layers = [f"residual.{layer}" for layer in range(len(model.engine.blocks))]
    return partial(activations, model.engine, model.facts.fingerprint, sites=layers)


def paired(
    shard: Sequence[AnchorBatch], reads: Sequence[Callable[[AnchorBatch], Activations]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What two models hold at the rows that both have, by name, [n, d]."""
    parts: tuple[dict[str, list[Tensor]], ...] = (defaultdict(list), defaultdict(list))
    for batch in shard:
        read = [each(batch) for each in reads]
        _, *at = np.intersect1d(read[0].rows, read[1].rows, return_indices=True)
        for into, each, rows in zip(parts, read, at, strict=True):
            for name, points in each.points.items():
                into[name].append(torch.from_numpy(points[rows]))
    one, other = ({name: torch.cat(of) for name, of in each.items()} for each in parts)
    return one, other
