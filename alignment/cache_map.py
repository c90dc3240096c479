"""Maps from all that a source caches of a token to all that a target does.

Every layer of the target reads every layer of the source: one factorisation serves them all. What
is read is reduced first, site by site, to the main components of its standardised features, so
that sums and map stay small for models of any depth.

Shapes: n rows, d width of a site, c components of it, D components of all inputs together, T width
of all outputs together, r rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor

from alignment.fitted import FitError
from alignment.maps import Affine, Linear, LowRank, MapError
from alignment.moments import cross_moment

FORMAT = 1
LAMBDAS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_HEADER = "isthmus"


@dataclass(frozen=True, eq=False)
class Reduction:
    """Rows of one input about their mean [d], by its main components or each in its own unit.

    `basis` is [c, d], or [d] where every feature stays, divided by its spread.
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def of(cls, rows: Tensor, components: int | None = None) -> Reduction:
        """To the main components of rows [n, d], each feature taken in units of its own spread.

        Without a number of components every feature stays.
        """
        mean, spread = rows.double().mean(0), rows.double().std(0)
        unit = torch.where(spread > 0, 1 / spread, 0.0)  # what never changes tells nothing
        if components is None:
            return cls(mean.float(), unit.float())
        near = (rows.double() - mean) * unit
        _, vectors = torch.linalg.eigh(near.mT @ near)
        basis = vectors.flip(1)[:, :components].mT * unit
        return cls(mean.float(), basis.float().contiguous())

    @property
    def width(self) -> int:
        """How many numbers are left: c, or d."""
        return len(self.basis)

    def __call__(self, points: Tensor) -> Tensor:
        near = points - self.mean
        return near * self.basis if self.basis.ndim == 1 else near @ self.basis.mT


@dataclass(frozen=True, eq=False)
class CacheMoments:
    """Sums over rows, in float64: x reduced [n, D], y [n, T], of whose squares only each its own.

    `xx` is [D, D], `xy` [D, T], `yy` [T]. Additive, as `Moments` are.
    """

    count: float
    sum_x: Tensor
    sum_y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> CacheMoments:
        squares = y.double().square().sum(0)
        sums = x.double().sum(0), y.double().sum(0)
        return cls(float(len(x)), *sums, cross_moment(x, x), cross_moment(x, y), squares)

    def __add__(self, other: CacheMoments) -> CacheMoments:
        return CacheMoments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def cov_x(self) -> Tensor:
        mean = self.sum_x / self.count
        return self.xx / self.count - torch.outer(mean, mean)

    @property
    def cov_xy(self) -> Tensor:
        return self.xy / self.count - torch.outer(self.sum_x, self.sum_y) / self.count**2

    def of_inputs(self, which: Tensor) -> CacheMoments:
        """The same rows with some of the inputs only, by their indices [D']."""
        xx, xy = self.xx[which][:, which], self.xy[which]
        return CacheMoments(self.count, self.sum_x[which], self.sum_y, xx, xy, self.yy)

    def about(self, x: Tensor, y: Tensor) -> CacheMoments:
        """The same rows with x [D] taken from the inputs and y [T] from the outputs."""
        n, sx, sy = self.count, self.sum_x, self.sum_y
        return CacheMoments(
            n,
            sx - n * x,
            sy - n * y,
            self.xx - torch.outer(sx, x) - torch.outer(x, sx) + n * torch.outer(x, x),
            self.xy - torch.outer(sx, y) - torch.outer(x, sy) + n * torch.outer(x, y),
            self.yy - 2 * sy * y + n * y.square(),
        )


@dataclass(frozen=True, eq=False)
class CacheMap:
    """Inputs by name, reduced and side by side, to the cells of every site of the target.

    `reductions` are by input, in the order in which they lie side by side; `writes` are the widths
    of the target's sites, in the order of the outputs of `map`.
    """

    reductions: Mapping[str, Reduction]
    map: Linear
    writes: Mapping[str, int]

    @property
    def reads(self) -> dict[str, int]:
        """The width of every input."""
        return {name: len(each.mean) for name, each in self.reductions.items()}

    def reduced(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs [n, d] by name to [n, D]."""
        return torch.cat([of(inputs[name]) for name, of in self.reductions.items()], dim=-1)

    def transform(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs [n, d] by name to the target's cells [n, d] by site."""
        points = self.map.transform(self.reduced(inputs))
        parts = points.split(list(self.writes.values()), dim=-1)
        return dict(zip(self.writes, parts, strict=True))

    def to_bytes(self, *, half: bool = False) -> bytes:
        """A safetensors file that holds everything; a bitwise round trip, but for `half`.

        With `half`, numbers are kept in float16, at half the size.
        """
        tensors = {f"map.{name}": tensor for name, tensor in self.map.tensors().items()}
        for name, each in self.reductions.items():
            tensors |= {f"mean.{name}": each.mean, f"basis.{name}": each.basis}
        record = {
            "format": FORMAT,
            "kind": self.map.kind,
            "reads": list(self.reductions),
            "writes": dict(self.writes),
            "formula": "x = concat over reads of (input - mean) @ basis.T, or (input - mean) * "
            f"basis where that is flat; {self.map.formula}",
        }
        kept = {name: tensor.half() if half else tensor for name, tensor in tensors.items()}
        return safetensors_torch.save(kept, {_HEADER: json.dumps(record)})

    @classmethod
    def from_bytes(cls, data: bytes) -> CacheMap:
        """Read what `to_bytes` wrote. MapError when it is not such a file."""
        try:
            tensors = {n: each.float() for n, each in safetensors_torch.load(data).items()}
        except SafetensorError as error:
            raise MapError(f"a map of caches is a whole safetensors file: {error}") from error
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        record = json.loads(metadata.get(_HEADER, "{}"))
        kinds: dict[str, type[Linear]] = {each.kind: each for each in (Affine, LowRank)}
        if (
            record.get("format") != FORMAT
            or record.get("kind") not in kinds
            or "reads" not in record
        ):
            raise MapError("this file holds no map of caches that this version can read")
        of_map = {
            name.removeprefix("map."): tensor
            for name, tensor in tensors.items()
            if name.startswith("map.")
        }
        reductions = {
            name: Reduction(tensors[f"mean.{name}"], tensors[f"basis.{name}"])
            for name in record["reads"]
        }
        return cls(reductions, kinds[record["kind"]](**of_map), record["writes"])


@dataclass(frozen=True, eq=False)
class FittedCaches:
    """A map, and for each of the target's sites the λ chosen and the R² on held-out rows."""

    map: CacheMap
    lambdas: dict[str, float]
    held_out_r2: dict[str, float]


def reductions(sample: Mapping[str, Tensor], components: Mapping[str, int]) -> dict[str, Reduction]:
    """Of every input, from a sample of its rows [n, d]; `components` says how many, by input."""
    return {name: Reduction.of(rows, components[name]) for name, rows in sample.items()}


def fit_caches(
    training: CacheMoments,
    held: CacheMoments,
    reduced: Mapping[str, Reduction],
    writes: Mapping[str, int],
    *,
    rank: int | None = None,
    lambdas: Iterable[float] = LAMBDAS,
) -> FittedCaches:
    """Ridge regression of every cell of the target on all inputs, with a λ for each site.

    λ is in units of the mean variance of the inputs; each site takes the one that does best on the
    held rows, and then all rows are fitted. With `rank`, what is fitted is cut down to so many
    directions of the target's cells, those in which most of it varies, each feature in units of
    its spread (reduced-rank regression, Izenman 1975).

    Raises:
        FitError: rows that are not finite; no λ that is positive, or one that is lost in rounding.
    """
    tried = [value for value in lambdas if value > 0]
    if not tried:
        raise FitError("caches need at least one λ, each positive")
    if not all(bool(t.isfinite().all()) for of in (training, held) for t in (of.xx, of.xy)):
        raise FitError("cannot fit: rows that are not finite")
    widths = list(writes.values())
    errors = []  # by λ, [T]
    near = held.about(training.sum_x / training.count, training.sum_y / training.count)
    for value in tried:
        weight = _ridge(training, [value] * len(widths), widths)
        seen = (near.xy * weight).sum(0), (weight * (near.xx @ weight)).sum(0)
        errors.append(near.yy - 2 * seen[0] + seen[1])
    by_site = torch.stack([torch.stack([s.sum() for s in e.split(widths)]) for e in errors])
    best = by_site.argmin(0)
    spread = torch.stack([part.sum() for part in near.yy.split(widths)])
    chosen = [tried[at] for at in best.tolist()]
    total = training + held
    weight = _ridge(total, chosen, widths)
    mean_x, mean_y = total.sum_x / total.count, total.sum_y / total.count
    bias = (mean_y - mean_x @ weight).float()
    if rank is None or rank >= min(weight.shape):
        made: Linear = Affine(weight.mT.float().contiguous(), bias)
    else:
        made = _low_rank(total, weight, rank, mean_x, mean_y)
    r2 = 1 - by_site.gather(0, best[None])[0] / spread
    return FittedCaches(
        CacheMap(dict(reduced), made, dict(writes)),
        dict(zip(writes, chosen, strict=True)),
        dict(zip(writes, r2.tolist(), strict=True)),
    )


def _ridge(of: CacheMoments, lambdas: list[float], widths: list[int]) -> Tensor:
    """Weights [D, T], the outputs of each site with the λ of the site."""
    cov_x, parts = of.cov_x, of.cov_xy.split(widths, dim=1)
    unit = float(cov_x.diagonal().mean()) or 1.0
    columns: list[Tensor] = [torch.empty(0)] * len(parts)
    for value in dict.fromkeys(lambdas):
        at = [number for number, each in enumerate(lambdas) if each == value]
        shrunk = cov_x.clone()
        shrunk.diagonal().add_(value * unit)
        together = torch.cat([parts[number] for number in at], dim=1)
        factor, failed = torch.linalg.cholesky_ex(shrunk)
        if failed:
            raise FitError(
                f"cannot fit: λ {value:g} is too small for inputs that depend so closely"
            )
        solved = torch.cholesky_solve(together, factor)
        for number, part in zip(at, solved.split([widths[n] for n in at], dim=1), strict=True):
            columns[number] = part
    return torch.cat(columns, dim=1)


def _low_rank(
    of: CacheMoments, weight: Tensor, rank: int, mean_x: Tensor, mean_y: Tensor
) -> LowRank:
    """The map x @ weight cut down to `rank` directions of the target's standardised cells."""
    variances = of.yy / of.count - mean_y.square()
    spread = variances.clamp_min(0).sqrt()
    unit = torch.where(spread > 0, 1 / spread, 0.0)
    values, vectors = torch.linalg.eigh(of.cov_x)
    half = values.clamp_min(0).sqrt()[:, None] * vectors.mT  # halfᵀ half = cov_x
    fitted = half @ (weight * unit)  # [D, T]: its Gram matrix is the covariance of what is fitted
    strength, main = torch.linalg.eigh(fitted @ fitted.mT)
    kept = main[:, -rank:] / strength[-rank:].clamp_min(torch.finfo().tiny).sqrt()
    directions = fitted.mT @ kept  # [T, r], orthonormal
    right = ((weight * unit) @ directions).mT
    left = directions * spread[:, None]
    bias = mean_y - left @ (right @ mean_x)
    return LowRank(left.float().contiguous(), right.float().contiguous(), bias.float())
