"""Fits maps of caches: ridge regression of every cell of a target, from all layers or from one.

One factorisation serves all sites of the target.

Shapes: n rows, d width of a site, D components of all inputs together, T width of all outputs
together, r rank.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.fitted import FitError
from alignment.maps import Affine, LowRank

LAMBDAS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
NEAR_LAMBDAS = (1e-6, 1e-5, 1e-4, *LAMBDAS)  # between two layers that may hold the same
_LEAST = 1e-3  # of a typical weight or spread, so that none is divided by nothing


@dataclass(frozen=True, eq=False)
class Fit:
    """A map of full rank, and for each of the target's sites the λ chosen and the held-out R²."""

    map: CacheMap
    lambdas: dict[str, float]
    held_out_r2: dict[str, float]


@dataclass(frozen=True, eq=False)
class FittedCaches(Fit):
    """A fit that can be cut down to a lower rank. `components` are those of the inputs, of training
    rows and of all rows."""

    components: tuple[Components, Components]
    _solved: _Solved

    def cut(self, rank: int, weights: Mapping[str, Tensor] | None = None) -> CacheMap:
        """What is fitted, cut down to so many directions of the target's cells.

        To those in which most of it varies (reduced-rank regression, Izenman 1975), each feature
        counting by its weight, [d] by site: what it matters to the target, if that is known; else
        in units of its spread. A rank that is none gives the map as it is.
        """
        made = self._solved.cut(rank, self._flat(weights))
        return self.map if made is None else replace(self.map, map=made)

    def within(self, size: int, weights: Mapping[str, Tensor] | None = None) -> CacheMap:
        """What is fitted, cut to the greatest rank of which the file in four bits is so small.

        Raises:
            FitError: no rank is.
        """
        outputs, inputs = self._solved.spectrum.projected.mT.shape

        def fits(rank: int) -> bool:
            empty = LowRank(
                torch.zeros(outputs, rank), torch.zeros(rank, inputs), torch.zeros(outputs)
            )
            return len(replace(self.map, map=empty).to_bytes(4)) <= size

        rank = bisect(range(1, min(outputs, inputs) + 1), 0, key=lambda rank: not fits(rank))
        if not rank:
            raise FitError(f"no map of caches fits into {size:,} bytes")
        return self.cut(rank, weights)

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
    components: tuple[Components, Components] | None = None,
) -> FittedCaches:
    """Ridge regression of every cell of the target on all inputs, with a λ for each site.

    λ is in units of the mean variance of the inputs; each site takes the one that does best on the
    held rows, and then all rows are fitted. With the `components` of what was fitted to the very
    same inputs, beside other cells, these need not be found again.

    Raises:
        FitError: rows that are not finite, or no λ that is positive.
    """
    tried = [value for value in lambdas if value > 0]
    if not tried:
        raise FitError("caches need at least one λ, each positive")
    if not all(bool(t.isfinite().all()) for of in (training, held) for t in (of.xx, of.xy)):
        raise FitError("cannot fit: rows that are not finite")
    widths = list(writes.values())
    every = training + held
    of_training, of_all = components or (Components.of(training), Components.of(every))
    errors, spread = _judged(_Spectrum(training, of_training), held, tried, widths)
    best = errors.argmin(0)
    chosen = [tried[at] for at in best.tolist()]
    r2 = 1 - errors.gather(0, best[None])[0] / spread
    of_outputs = torch.tensor(chosen, dtype=torch.float64).repeat_interleave(torch.tensor(widths))
    solved = _Solved.of(_Spectrum(every, of_all), of_outputs)
    # In units of their spread all inputs weigh alike, which four bits need.
    units = solved.units.split([each.width for each in reduced.values()])
    in_units = {
        name: each.in_units(unit) for (name, each), unit in zip(reduced.items(), units, strict=True)
    }
    return FittedCaches(
        CacheMap(in_units, solved.whole(), dict(writes)),
        dict(zip(writes, chosen, strict=True)),
        dict(zip(writes, r2.tolist(), strict=True)),
        (of_training, of_all),
        solved,
    )


@dataclass(frozen=True, eq=False)
class Components:
    """Of inputs: cov_x = V diag(e) Vᵀ, with e [D] and V [D, D]."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, moments: CacheMoments) -> Components:
        values, vectors = torch.linalg.eigh(moments.cov_x)
        return cls(values.clamp_min(0.0), vectors)


class _Spectrum:
    """The components of inputs, and what each says of the outputs: Vᵀ cov_xy [D, T]."""

    def __init__(self, of: CacheMoments, components: Components) -> None:
        cov_x = of.cov_x
        self.values, self.vectors = components.values, components.vectors
        self.unit = float(cov_x.diagonal().mean()) or 1.0
        self.projected = _product(self.vectors.mT, of.cov_xy)
        self.mean_x, self.mean_y = of.mean_x, of.mean_y
        spread = cov_x.diagonal().clamp_min(0).sqrt()
        self.units = torch.where(spread > _LEAST * spread.mean(), spread, 1.0)
        self.spread = (of.yy / of.count - self.mean_y.square()).clamp_min(0).sqrt()

    def shrunk(self, lambdas: Tensor) -> Tensor:
        """The weights in terms of the components, [D, T], for a λ for each output [T]."""
        return self.projected * self.factors(lambdas[:, None]).mT

    def factors(self, lambdas: Tensor) -> Tensor:
        """What components are weighed by, [.., D], for λ [.., 1]."""
        return 1 / (self.values + lambdas * self.unit)


def _judged(
    spectrum: _Spectrum, held: CacheMoments, lambdas: list[float], widths: list[int]
) -> tuple[Tensor, Tensor]:
    """Σ (y - prediction)² of every site, of so many outputs each, over held rows, by λ [c, s]; and
    Σ (y - mean)² [s].

    With P what components say of a site, diag(f) P is fitted to it, f = 1 / (e + λ).
    Σ prediction² is fᵀ (xx ∘ P Pᵀ) f, of which all but f is the same for every λ.
    """
    near = held.about(spectrum.mean_x, spectrum.mean_y)
    turn, factors = spectrum.vectors.mT, spectrum.factors(torch.tensor(lambdas)[:, None])  # [c, D]
    # In float32, which is enough to tell which λ is best, and twice as fast.
    xx, xy = (turn @ near.xx @ spectrum.vectors).float(), turn.float() @ near.xy.float()
    explained = []
    for said, seen in zip(
        spectrum.projected.float().split(widths, 1), xy.split(widths, 1), strict=True
    ):
        linear = factors @ (seen * said).sum(1).double()
        squares = (factors.float() @ (xx * (said @ said.mT))).double()
        explained.append(2 * linear - (squares * factors).sum(1))
    spread = torch.stack([of.sum() for of in near.yy.split(widths)])
    return spread - torch.stack(explained, 1), spread


def _product(vectors: Tensor, of: Tensor) -> Tensor:
    """In float32, twice as fast: what is lost of the weakest component, that λ leaves anything of,
    is a thousandth of what the strongest says."""
    return (vectors.float() @ of.float()).double()


@dataclass(frozen=True, eq=False)
class _Solved:
    """What is fitted, in terms of the components of all inputs: weights [D, T].

    Maps read inputs in units [D] of their spread.
    """

    spectrum: _Spectrum
    weights: Tensor

    @classmethod
    def of(cls, spectrum: _Spectrum, lambdas: Tensor) -> _Solved:
        return cls(spectrum, spectrum.shrunk(lambdas))

    @property
    def units(self) -> Tensor:
        return self.spectrum.units

    def whole(self) -> Affine:
        weight = _product(self.spectrum.vectors, self.weights).mT
        bias = self.spectrum.mean_y - weight @ self.spectrum.mean_x
        return Affine((weight * self.units).float().contiguous(), bias.float())

    def cut(self, rank: int, weights: Tensor) -> LowRank | None:
        """Cut by weights [T]; None where that cuts off nothing."""
        if rank >= min(self.weights.shape):
            return None
        main, strength = self._directions(weights)
        kept, strength = main[:, :rank], strength[:rank]  # [T, r], [r]
        right = (self.spectrum.vectors @ (self.weights * weights @ kept)).mT
        left = kept / weights[:, None]
        bias = self.spectrum.mean_y - left @ (right @ self.spectrum.mean_x)
        # In between, directions are in units of how much they vary.
        left, right = left * strength, right / strength[:, None] * self.units
        return LowRank(left.float().contiguous(), right.float().contiguous(), bias.float())

    def _directions(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of the target's weighted cells, those [T, D] in which what is fitted varies most first,
        and its spread along each [D]."""
        # Its Gram matrix is the covariance of what is fitted.
        fitted = self.spectrum.values.sqrt()[:, None] * self.weights * weights
        variance, main = torch.linalg.eigh(fitted @ fitted.mT)
        spread = variance.clamp_min(torch.finfo().tiny).sqrt()
        return (fitted.mT @ (main / spread)).flip(1), spread.flip(0)


def nearer(every: Fit, near: Mapping[str, Fit]) -> tuple[CacheMap, dict[str, float]]:
    """The map that writes each site from all layers or from one, whichever does better on held-out
    rows; and the R² there by site.

    `near` holds, by site of the target, what is fitted to it from one layer alone.
    """
    r2 = {site: each.held_out_r2[site] for site, each in near.items()}
    chosen = {site: near[site].map for site in near if r2[site] > every.held_out_r2[site]}
    writes = every.map.writes
    rows = [
        torch.arange(end - width, end)
        for (site, width), end in zip(
            writes.items(), torch.tensor(list(writes.values())).cumsum(0).tolist(), strict=True
        )
        if site not in chosen
    ]
    kept = torch.cat(rows) if rows else torch.arange(0)
    wide = every.map.map
    assert isinstance(wide, Affine), "what is fitted is of full rank"
    return (
        CacheMap(
            every.map.reductions,
            Affine(wide.weight[kept], wide.bias[kept]),
            {site: width for site, width in writes.items() if site not in chosen},
            chosen,
        ),
        {**every.held_out_r2, **{site: r2[site] for site in chosen}},
    )
