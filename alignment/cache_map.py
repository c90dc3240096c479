"""Maps from all that a source caches of a token to all that a target does.

Every layer of the target reads every layer of the source: one factorisation serves them all. What
is read is reduced first, site by site, to the main components of its standardised features, so
that sums and map stay small for models of any depth.

Shapes: n rows, d width of a site, c components of it, D components of all inputs together, T width
of all outputs together, r rank.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from alignment.fitted import FitError
from alignment.four_bits import packed, unpacked
from alignment.maps import Affine, Linear, LowRank, MapError
from alignment.maps.base import split_record, with_record
from alignment.moments import Sums, cross_moment

FORMAT = 1
RECORD_FILE, WEIGHTS_FILE = "cache_map.json", "cache_map.safetensors"
Bits = Literal[32, 16, 4]  # of a number that is stored
LAMBDAS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_LEAST = 1e-3  # of a typical weight or spread, so that none is divided by nothing


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
class CacheMoments(Sums):
    """Sums over rows of reduced inputs [n, D] and of cells [n, T], of yy its diagonal alone [T]."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> CacheMoments:
        squares = y.double().square().sum(0)
        sums = x.double().sum(0), y.double().sum(0)
        return cls(float(len(x)), *sums, cross_moment(x, x), cross_moment(x, y), squares)

    def of_inputs(self, which: Tensor) -> CacheMoments:
        """The same rows with some of the inputs only, by their indices [D']."""
        xx, xy = self.xx[which][:, which], self.xy[which]
        return CacheMoments(self.count, self.sum_x[which], self.sum_y, xx, xy, self.yy)

    @staticmethod
    def _squares(one: Tensor, other: Tensor) -> Tensor:
        return one * other


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

    def to_bytes(self, bits: Bits = 32) -> bytes:
        """A safetensors file that holds everything; with 32 bits a bitwise round trip.

        With 16, numbers are kept in float16; with 4, so are those of vectors, and matrices as
        `alignment.four_bits` says.
        """
        tensors = {f"map.{name}": tensor for name, tensor in self.map.tensors().items()}
        for name, each in self.reductions.items():
            tensors |= {f"mean.{name}": each.mean, f"basis.{name}": each.basis}
        in_four = {n: of for n, of in tensors.items() if bits == 4 and of.ndim == 2}
        kept = {name: of.half() if bits < 32 else of for name, of in tensors.items()}
        for name, of in in_four.items():
            del kept[name]
            kept[f"pairs.{name}"], kept[f"units.{name}"] = packed(of)
        record = {
            "format": FORMAT,
            "kind": self.map.kind,
            "reads": list(self.reductions),
            "writes": list(self.writes.items()),
            "formula": "x = concat over reads of (input - mean) @ basis.T, or (input - mean) * "
            f"basis where that is flat; {self.map.formula}",
            "four_bits": {name: list(of.shape) for name, of in in_four.items()},
            "four_bits_formula": "number = units (one for 64) * (low half of a byte - 8, then its "
            "high half - 8)",
        }
        return with_record(kept, record)

    def save(self, directory: Path, bits: Bits = 32) -> None:
        """Write cache_map.safetensors, and cache_map.json, which says what it is."""
        weights = self.to_bytes(bits)
        _, record = split_record(weights)
        about = {**record, "kind": "cache", "map": self.map.kind, "bits": bits}
        about["sha256"] = hashlib.sha256(weights).hexdigest()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / WEIGHTS_FILE).write_bytes(weights)
        (directory / RECORD_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> CacheMap:
        """Read what `to_bytes` wrote. MapError when it is not such a file."""
        stored, record = split_record(data)
        kinds: dict[str, type[Linear]] = {each.kind: each for each in (Affine, LowRank)}
        if (
            record.get("format") != FORMAT
            or record.get("kind") not in kinds
            or "reads" not in record
        ):
            raise MapError("this file holds no map of caches that this version can read")
        tensors = {name: tensor.float() for name, tensor in stored.items()}
        for name, shape in record["four_bits"].items():
            tensors[name] = unpacked(stored[f"pairs.{name}"], stored[f"units.{name}"], shape)
        of_map = {
            name.removeprefix("map."): tensor
            for name, tensor in tensors.items()
            if name.startswith("map.")
        }
        reductions = {
            name: Reduction(tensors[f"mean.{name}"], tensors[f"basis.{name}"])
            for name in record["reads"]
        }
        return cls(reductions, kinds[record["kind"]](**of_map), dict(record["writes"]))


@dataclass(frozen=True, eq=False)
class FittedCaches:
    """A map of full rank, and for each of the target's sites the λ chosen and the held-out R²."""

    map: CacheMap
    lambdas: dict[str, float]
    held_out_r2: dict[str, float]
    _solved: _Solved

    def cut(self, rank: int, weights: Mapping[str, Tensor] | None = None) -> CacheMap:
        """What is fitted, cut down to so many directions of the target's cells.

        To those in which most of it varies (reduced-rank regression, Izenman 1975), each feature
        counting by its weight, [d] by site: what it matters to the target, if that is known; else
        in units of its spread. A rank that is none gives the map as it is.
        """
        made = self._solved.cut(rank, self._flat(weights))
        return self.map if made is None else replace(self.map, map=made)

    def _flat(self, weights: Mapping[str, Tensor] | None) -> Tensor:
        """Of all outputs side by side, none of them 0: [T]."""
        spread = self._solved.spectrum.spread
        if weights is None:
            return 1 / spread.clamp_min(_LEAST * float(spread.mean() or 1.0))
        given = torch.cat([weights[site] for site in self.map.writes]).double()
        return given.clamp_min(_LEAST * float(given.mean()))


def fit_caches(
    training: CacheMoments,
    held: CacheMoments,
    reduced: Mapping[str, Reduction],
    writes: Mapping[str, int],
    lambdas: Iterable[float] = LAMBDAS,
) -> FittedCaches:
    """Ridge regression of every cell of the target on all inputs, with a λ for each site.

    λ is in units of the mean variance of the inputs; each site takes the one that does best on the
    held rows, and then all rows are fitted.

    Raises:
        FitError: rows that are not finite, or no λ that is positive.
    """
    tried = [value for value in lambdas if value > 0]
    if not tried:
        raise FitError("caches need at least one λ, each positive")
    if not all(bool(t.isfinite().all()) for of in (training, held) for t in (of.xx, of.xy)):
        raise FitError("cannot fit: rows that are not finite")
    widths = list(writes.values())
    judged, spread = _judged(_Spectrum(training), held, tried)
    by_site = torch.stack([part.sum(1) for part in judged.split(widths, dim=1)], dim=1)
    best = by_site.argmin(0)
    chosen = [tried[at] for at in best.tolist()]
    r2 = 1 - by_site.gather(0, best[None])[0] / torch.stack([s.sum() for s in spread.split(widths)])
    of_outputs = torch.tensor(chosen, dtype=torch.float64).repeat_interleave(torch.tensor(widths))
    solved = _Solved.of(_Spectrum(training + held), of_outputs)
    return FittedCaches(
        CacheMap(dict(reduced), solved.whole(), dict(writes)),
        dict(zip(writes, chosen, strict=True)),
        dict(zip(writes, r2.tolist(), strict=True)),
        solved,
    )


class _Spectrum:
    """cov_x = V diag(e) Vᵀ, and what each component says of the outputs: Vᵀ cov_xy [D, T]."""

    def __init__(self, of: CacheMoments) -> None:
        cov_x = of.cov_x
        values, self.vectors = torch.linalg.eigh(cov_x)
        self.values = values.clamp_min(0.0)
        self.unit = float(cov_x.diagonal().mean()) or 1.0
        self.projected = self.vectors.mT @ of.cov_xy
        self.mean_x, self.mean_y = of.mean_x, of.mean_y
        self.spread = (of.yy / of.count - self.mean_y.square()).clamp_min(0).sqrt()

    def shrunk(self, lambdas: Tensor) -> Tensor:
        """The weights in terms of the components, [D, T], for a λ, or one for each output [T]."""
        return self.projected / (self.values[:, None] + lambdas * self.unit)


def _judged(spectrum: _Spectrum, held: CacheMoments, lambdas: list[float]) -> tuple[Tensor, Tensor]:
    """Σ (y - prediction)² of every output over held rows, by λ [c, T]; and Σ (y - mean)² [T]."""
    near = held.about(spectrum.mean_x, spectrum.mean_y)
    turn = spectrum.vectors.mT
    # In float32, which is enough to tell which λ is best, and twice as fast.
    xx, xy = (turn @ near.xx @ spectrum.vectors).float(), (turn @ near.xy).float()
    errors = []
    for value in lambdas:
        weight = spectrum.shrunk(torch.tensor(value)).float()
        explained = 2 * (xy * weight).sum(0) - (weight * (xx @ weight)).sum(0)
        errors.append(near.yy - explained.double())
    return torch.stack(errors), near.yy


@dataclass(frozen=True, eq=False)
class _Solved:
    """What is fitted, in terms of the components of all inputs: weights [D, T]."""

    spectrum: _Spectrum
    weights: Tensor

    @classmethod
    def of(cls, spectrum: _Spectrum, lambdas: Tensor) -> _Solved:
        return cls(spectrum, spectrum.shrunk(lambdas))

    def whole(self) -> Affine:
        weight = (self.spectrum.vectors @ self.weights).mT
        bias = self.spectrum.mean_y - weight @ self.spectrum.mean_x
        return Affine(weight.float().contiguous(), bias.float())

    def cut(self, rank: int, weights: Tensor) -> LowRank | None:
        """Cut by weights [T]; None where that cuts off nothing."""
        if rank >= min(self.weights.shape):
            return None
        kept = self._directions(weights)[:, :rank]  # [T, r]
        right = (self.spectrum.vectors @ (self.weights * weights @ kept)).mT
        left = kept / weights[:, None]
        bias = self.spectrum.mean_y - left @ (right @ self.spectrum.mean_x)
        return LowRank(left.float().contiguous(), right.float().contiguous(), bias.float())

    def _directions(self, weights: Tensor) -> Tensor:
        """Of the target's weighted cells, those in which what is fitted varies most first."""
        # Its Gram matrix is the covariance of what is fitted.
        fitted = self.spectrum.values.sqrt()[:, None] * self.weights * weights
        strength, main = torch.linalg.eigh(fitted @ fitted.mT)
        lengths = strength.clamp_min(torch.finfo().tiny).sqrt()
        return (fitted.mT @ (main / lengths)).flip(1)
