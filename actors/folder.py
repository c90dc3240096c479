"""Folds streams of activations into the little that is kept of them, and fits maps from that.

Shapes: n rows that two models share, ds and dt their widths.

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

from actors.comparing import Comparison, KeptBatches
from actors.exchange import Activations, Exchange, ShardLost, exchanged, shared_rows
from alignment.fitted import Fitted, Fitter
from alignment.moments import FoldedMoments, Moments, cross_moment
from alignment.samples import FoldedRows, Sample
from cluster.storage import Store, address

SAMPLE_ROWS_A_BATCH = 64
SAMPLE_ROWS_IN_ALL = 8192  # that a map is fitted on, whatever the number of shards
_SHUFFLED = "shuffled_xy"
_SAMPLE = {"sample_x": "x", "sample_y": "y", "routes_x": "x_routes", "routes_y": "y_routes"}


@dataclass(frozen=True)
class SitePair:
    """A site of one model beside a site of another; models are named by fingerprint.

    Routers are the sites of decisions that are kept with sampled rows, where fitters want them.
    """

    source: str
    source_site: str
    target: str
    target_site: str
    source_router: str | None = None
    target_router: str | None = None


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
    the same way to rows of different texts, paired at random. `maps` are (recipe, address).
    """

    shards: tuple[str, ...]
    folds: int
    reverse: bool
    shuffle: int | None
    maps: tuple[tuple[Fitter, str], ...]

    @property
    def needs_rows(self) -> bool:
        return any(recipe.needs_rows for recipe, _ in self.maps)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is left of the rows of a pair: sums, XYᵀ of rows paired at random, and a sample."""

    moments: Moments
    shuffled: Tensor
    samples: tuple[Sample, ...]

    def __add__(self, other: "_Sums") -> "_Sums":
        samples = (*self.samples, *other.samples)
        return _Sums(self.moments + other.moments, self.shuffled + other.shuffled, samples)

    def to_bytes(self) -> bytes:
        sample = Sample.joined(self.samples)
        rows = {name: getattr(sample, field) for name, field in _SAMPLE.items()}
        there = {name: tensor for name, tensor in rows.items() if tensor is not None}
        tensors = {**self.moments.tensors(), _SHUFFLED: self.shuffled, **there}
        return safetensors_torch.save({name: t.contiguous() for name, t in tensors.items()})


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
        self._open: dict[str, tuple[int, _Sums]] = {}
        self._kept = KeptBatches(store)

    def blind_on(self, address: str) -> str | None:
        """The name of this machine, if its store has no blob at the address; None if it has."""
        return None if self._store.has(address) else socket.gethostname()

    def fold(self, keep: Keep, *activations: Activations) -> int:
        """Add a batch to the moments of every pair; write those whose shard it completes.

        Returns the rows of the first model. Raises ShardLost where earlier batches are gone.
        """
        models = exchanged(keep.exchange, activations, self._store)
        for pair, to in keep.moments:
            sums = _sums(pair, models[pair.source], models[pair.target])
            if keep.index:
                done, so_far = self._open.get(to, (0, sums))
                if done != keep.index:
                    raise ShardLost(f"batch {keep.index} of a shard came after {done} others")
                sums = so_far + sums
            self._open[to] = (keep.index + 1, sums)
            if keep.last:
                self._store.put(to, sums.to_bytes())
                del self._open[to]
        return len(activations[0].rows)

    def keep(self, index: int, exchange: Exchange, *activations: Activations) -> None:
        """See `actors.comparing.KeptBatches.keep`, of what all models hold at a batch."""
        self._kept.keep(index, exchanged(exchange, activations, self._store))

    def compare(self, comparisons: Sequence[Comparison]) -> None:
        """See `actors.comparing.KeptBatches.compare`."""
        self._kept.compare(comparisons)

    def fit(self, order: FitOrder) -> None:
        """Fit every map of the order and write it, with its report, at its address."""
        moments, rows = self._read(order)
        total = moments.total()
        for recipe, to in order.maps:
            self._write(to, recipe, recipe.fit(moments, rows), total)

    def _read(self, order: FitOrder) -> tuple[FoldedMoments, FoldedRows | None]:
        folds: list[Moments] = []
        samples: list[list[Sample]] = [[] for _ in range(order.folds)]
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
            if order.needs_rows:
                there = {of: tensors[name] for name, of in _SAMPLE.items() if name in tensors}
                sample = Sample(**there)
                quota = _quota(number, len(order.shards))
                samples[number % order.folds].append(sample.thinned(quota))
        return FoldedMoments(tuple(folds)), _rows(order, samples) if order.needs_rows else None

    def _write(self, to: str, recipe: Fitter, fitted: Fitted, total: Moments) -> None:
        report = {
            "fitter": recipe.name,
            "hyperparameters": asdict(recipe),
            "held_out_r2": fitted.held_out_r2,
            "chosen": fitted.chosen,
            "curve": fitted.curve,
            "facts": fitted.facts,
            "rows": total.count,
            "target_spread": _spread(total),
        }
        self._store.put(report_address(to), json.dumps(report, sort_keys=True).encode())
        self._store.put(to, fitted.map.to_bytes())


def _sums(pair: SitePair, source: Activations, target: Activations) -> _Sums:
    in_source, in_target = shared_rows(source, target)
    x = torch.from_numpy(source.points[pair.source_site][in_source])
    y = torch.from_numpy(target.points[pair.target_site][in_target])
    shuffled = cross_moment(x, y[_across(len(y), source.batch)])
    routes = (
        _routes(source, pair.source_router, in_source),
        _routes(target, pair.target_router, in_target),
    )
    sample = Sample.of(x, y, *routes).thinned(SAMPLE_ROWS_A_BATCH)
    return _Sums(Moments.of(x, y), shuffled, (sample,))


def _routes(of: Activations, router: str | None, rows: np.ndarray) -> Tensor | None:
    return None if router is None else torch.from_numpy(of.points[router][rows])


def _quota(number: int, shards: int) -> int:
    """How many sampled rows of a shard are fitted on: over all shards no more than the most."""
    before, after = (at * SAMPLE_ROWS_IN_ALL // shards for at in (number, number + 1))
    return after - before


def _rows(order: FitOrder, samples: Sequence[Sequence[Sample]]) -> FoldedRows:
    """The sample by folds; for a control map, rows of a fold paired at random across its texts."""
    folds = [Sample.joined(each) for each in samples]
    if order.shuffle is not None:
        folds = [each.crossed(order.shuffle, fold) for fold, each in enumerate(folds)]
    return FoldedRows(tuple(each.swap() if order.reverse else each for each in folds))


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
