"""Folds streams of activations into the little that is kept of them, and fits maps from that.

Shapes: n rows that two models share, ds and dt their widths, L layers.

A shard of anchors is the unit of work: its moments are summed in memory, in the order of its
batches, and exist once its address does. A worker that dies loses no more than its open shards, and
since shards are summed in order too, what is fitted is the same to the last bit.
"""

import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from safetensors import torch as safetensors_torch
from torch import Tensor

from actors.exchange import Exchange, exchanged
from actors.reading import Activations
from alignment.fitted import Fitted
from alignment.fitters import FITTERS
from alignment.moments import FoldedMoments, Moments, cross_moment
from alignment.similarity import compare
from cluster.storage import Store, address

_SHUFFLED = "shuffled_xy"


class ShardLost(RuntimeError):
    """A batch came without those before it in its shard: the worker that had them has died."""


@dataclass(frozen=True)
class SitePair:
    """A site of one model beside a site of another; models are named by fingerprint."""

    source: str
    source_site: str
    target: str
    target_site: str


@dataclass(frozen=True)
class Keep:
    """What is to become of a batch: its place in its shard, and where each pair's sums go."""

    index: int
    last: bool
    moments: tuple[tuple[SitePair, str], ...]
    exchange: Exchange = field(default_factory=Exchange)


@dataclass(frozen=True)
class FitOrder:
    """Maps of one site pair from the moments of its shards; every one has its own address.

    `reverse` fits from target to source. With `shuffle`, a seed, they are control maps: fitted in
    the same way to rows of different texts, paired at random. `maps` are (fitter, address).
    """

    shards: tuple[str, ...]
    folds: int
    reverse: bool
    shuffle: int | None
    maps: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """All layers of one model beside all layers of another, to be written at `to`."""

    source: str
    target: str
    source_sites: tuple[str, ...]
    target_sites: tuple[str, ...]
    rows: int
    neighbours: int
    permutations: int
    seed: int
    to: str


def shared_rows(source: Activations, target: Activations) -> tuple[np.ndarray, np.ndarray]:
    """Indices [n] into both of the rows that both models have, in the order of the text."""
    assert source.batch == target.batch, f"batches {source.batch} and {target.batch} do not meet"
    _, in_source, in_target = np.intersect1d(
        source.rows, target.rows, assume_unique=True, return_indices=True
    )
    return in_source, in_target


def report_address(map_address: str) -> str:
    """Where the report of a fitted map is: what was chosen, and how it does on held-out rows."""
    return address("fit-report", map_address)


class Folder:
    """A worker that holds no model, and does what is done with activations.

    It sums moments as they come, keeps a bounded number of rows to compare layers on, and fits
    maps from sums.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, tuple[int, Moments, Tensor]] = {}
        self._kept: list[dict[str, Activations]] = []

    def blind_on(self, address: str) -> str | None:
        """The name of this machine, if its store has no blob at the address; None if it has."""
        return None if self._store.has(address) else socket.gethostname()

    def fold(self, keep: Keep, *activations: Activations) -> int:
        """Add a batch to the moments of every pair; write those whose shard it completes.

        Returns the rows of the first model. Raises ShardLost where earlier batches are gone.
        """
        models = exchanged(keep.exchange, activations, self._store)
        for pair, to in keep.moments:
            moments, shuffled = _sums(pair, models[pair.source], models[pair.target])
            if keep.index:
                done, so_far, shuffled_so_far = self._open.get(to, (0, moments, shuffled))
                if done != keep.index:
                    raise ShardLost(f"batch {keep.index} of a shard came after {done} others")
                moments, shuffled = so_far + moments, shuffled_so_far + shuffled
            self._open[to] = (keep.index + 1, moments, shuffled)
            if keep.last:
                self._store.put(to, _to_bytes(moments, shuffled))
                del self._open[to]
        return len(activations[0].rows)

    def keep(self, index: int, exchange: Exchange, *activations: Activations) -> None:
        """Keep batch `index` whole, to be compared; batch 0 forgets what was kept before.

        Raises ShardLost where earlier ones are gone.
        """
        models = exchanged(exchange, activations, self._store)
        if index == 0:
            self._kept.clear()
        if index != len(self._kept):
            raise ShardLost(f"batch {index} came after {len(self._kept)} others")
        self._kept.append({name: _copied(each) for name, each in models.items()})

    def compare(self, comparisons: Sequence[Comparison]) -> None:
        """Compare every layer pair of models over the rows kept, and write each result."""
        for comparison in comparisons:
            self._compare(comparison)

    def _compare(self, comparison: Comparison) -> None:
        pairs = [(models[comparison.source], models[comparison.target]) for models in self._kept]
        shared = [shared_rows(source, target) for source, target in pairs]

        def gather(side: int, site: str) -> Tensor:
            kept = [
                pair[side].points[site][rows[side]]
                for pair, rows in zip(pairs, shared, strict=True)
            ]
            return torch.from_numpy(np.concatenate(kept)[: comparison.rows])

        similarity = compare(
            [gather(0, site) for site in comparison.source_sites],
            [gather(1, site) for site in comparison.target_sites],
            k=comparison.neighbours,
            permutations=comparison.permutations,
            seed=comparison.seed,
        )
        self._store.put(comparison.to, similarity.to_bytes())

    def fit(self, order: FitOrder) -> None:
        """Fit every map of the order and write it, with its report, at its address."""
        folded = self._read(order)
        total = folded.total()
        for name, to in order.maps:
            self._write(to, name, FITTERS[name]().fit(folded), total)

    def _read(self, order: FitOrder) -> FoldedMoments:
        folds: list[Moments] = []
        signs = np.random.default_rng(order.shuffle).choice((-1.0, 1.0), len(order.shards))
        for number, (place, sign) in enumerate(zip(order.shards, signs, strict=True)):
            tensors = safetensors_torch.load(self._store.get(place))
            moments = Moments.from_tensors(tensors)
            if order.shuffle is not None:
                moments = _shuffled(moments, tensors[_SHUFFLED], float(sign))
            moments = moments.swap() if order.reverse else moments
            if number < order.folds:
                folds.append(moments)
            else:  # summed as they come, so that memory does not grow with the shards
                folds[number % order.folds] += moments
        return FoldedMoments(tuple(folds))

    def _write(self, to: str, name: str, fitted: Fitted, total: Moments) -> None:
        report = {
            "fitter": name,
            "hyperparameters": asdict(FITTERS[name]()),
            "held_out_r2": fitted.held_out_r2,
            "chosen": fitted.chosen,
            "curve": fitted.curve,
            "rows": total.count,
            "target_spread": _spread(total),
        }
        self._store.put(report_address(to), json.dumps(report, sort_keys=True).encode())
        self._store.put(to, fitted.map.to_bytes())


def _sums(pair: SitePair, source: Activations, target: Activations) -> tuple[Moments, Tensor]:
    in_source, in_target = shared_rows(source, target)
    x = torch.from_numpy(source.points[pair.source_site][in_source])
    y = torch.from_numpy(target.points[pair.target_site][in_target])
    return Moments.of(x, y), cross_moment(x, y[_across(len(y), source.batch)])


def _across(rows: int, batch: str) -> Tensor:
    """A random pairing of the first half of the rows with the second: hardly ever of one text.

    Seeded by the batch alone, so that a batch folded again is shuffled again in the same way.
    """
    generator = torch.Generator().manual_seed(int(address(batch)[:12], 16))
    half = rows // 2
    first = torch.randperm(half, generator=generator)
    second = half + torch.randperm(rows - half, generator=generator)
    return torch.cat((second, first))


def _shuffled(moments: Moments, xy: Tensor, sign: float) -> Moments:
    """The moments with shuffled rows, and the sign of what covariance chance left them turned.

    Chance covariance has no preferred sign, so turning it shard by shard draws another shuffle.
    """
    by_chance = torch.outer(moments.sum_x, moments.sum_y) / moments.count
    return moments.with_cross(by_chance + sign * (xy - by_chance))


def _spread(moments: Moments) -> float:
    """Length of a typical centred target row, as if all features had the median one's spread.

    The plain root-mean-square is the length of a few massive activations (arXiv 2402.17762).
    """
    deviations = moments.cov_y.diagonal().clamp_min(0).sqrt()
    return float(deviations.median() * len(deviations) ** 0.5)


def _to_bytes(moments: Moments, shuffled: Tensor) -> bytes:
    tensors = {**moments.tensors(), _SHUFFLED: shuffled}
    return safetensors_torch.save({name: t.contiguous() for name, t in tensors.items()})


def _copied(activations: Activations) -> Activations:
    """Its own memory: what arrives is a view into the object store, and would keep it full."""
    points = {site: points.copy() for site, points in activations.points.items()}
    return Activations(
        activations.model,
        activations.batch,
        activations.rows.copy(),
        points,
    )
