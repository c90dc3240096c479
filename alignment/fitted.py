"""What a fitter is, what it returns, and how each is judged on rows it has not seen.

Shapes: ds source width, dt target width, c candidates.

A `MomentFitter` learns from sums alone, any other also from a sample of the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
from operator import add
from typing import ClassVar, Self

import torch
from torch import Tensor

from alignment.anatomy import Anatomy
from alignment.maps import Affine, Linear, LowRank, Map
from alignment.moments import FoldedMoments, Moments
from alignment.samples import FoldedRows, Sample

# What of a sum of squares is left by rounding where the mean is taken from it, in float64.
ROUNDING = 1e-13


class FitError(ValueError):
    """Moments from which no map can be fitted, or a recipe that cannot be."""


@dataclass(frozen=True)
class Fitted:
    """A map fitted on all folds, and its R² on held-out folds.

    held_out_r2 is 1 - SSE/SST pooled over folds, each fold predicted from the others, SST being
    about the mean of the training rows. `chosen` holds the hyperparameters picked by it (then it
    is the best of `curve`, hence a little hopeful) and `curve` the R² of every candidate, by the
    values of `chosen` in their order. `facts` is what else there is to tell of the map.
    """

    map: Map
    held_out_r2: float
    chosen: dict[str, float] = field(default_factory=dict)
    curve: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Part:
    """Rows to learn from, or to be judged on: sums over all of them, and a sample of them."""

    moments: Moments
    rows: Sample


@dataclass(frozen=True)
class Fitter(ABC):
    """A recipe: a frozen dataclass of hyperparameters (all with defaults), that fits a map.

    A hyperparameter that is chosen on held-out folds is a field of candidates, in the plural
    (`lambdas`); `chooses` and `Fitted.chosen` name it in the singular (`lambda`), and `settled`
    leads back. Every combination is tried. A share is at most 1, and all are positive.
    """

    chooses: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = "any widths"  # what `applies` asks for, in words
    needs_rows: ClassVar[bool] = False
    needs_routes: ClassVar[bool] = False  # of the routers of sparse models, at those rows

    @classmethod
    def between(cls, source: Anatomy, target: Anatomy) -> Self:
        """The recipe for maps between two such models."""
        del source, target  # for those to whom they say something
        return cls()

    def __post_init__(self) -> None:
        for name, values in self._candidates().items():
            most = 1.0 if name == "share" else torch.finfo().max
            if not values or not all(0 < value <= most for value in values):
                limits = "each positive" + (" and at most 1" if name == "share" else "")
                symbol = name.replace("lambda", "λ").replace("_", " ")
                raise FitError(f"{self.name} needs at least one {symbol}, {limits}; got {values}")

    @property
    def name(self) -> str:
        """The key in FITTERS, which is the file's name."""
        return type(self).__module__.rpartition(".")[2]

    def applies(self, source_width: int, target_width: int) -> bool:
        """Whether there is such a map between these widths."""
        return min(source_width, target_width) > 0

    def settled(self, chosen: Mapping[str, float]) -> Self:
        """This recipe with what was chosen as the only candidates."""
        return replace(self, **{f"{name}s": (value,) for name, value in chosen.items()})

    def fit(self, moments: FoldedMoments, rows: FoldedRows | None = None) -> Fitted:
        """Fit to all folds, choosing by held-out ones. FitError when that cannot be done.

        `rows` are a sample of the rows of the moments, in the same folds.
        """
        ds, dt = moments.folds[0].xy.shape
        if not self.applies(ds, dt):
            raise FitError(f"cannot fit: {self.name} needs {self.needs}, not {ds} to {dt}")
        total, pairs = _splits(moments, rows)
        if self.needs_rows and not all(len(training.rows) for training, _ in pairs):
            raise FitError(f"cannot fit: {self.name} needs a sample of rows in at least 2 folds")
        candidates = self._candidates()
        tried = list(product(*candidates.values()))
        errors = reduce(add, (self.judge(training, held) for training, held in pairs))
        spread = _spread((held.moments, training.moments.mean_y) for training, held in pairs)
        scores = (1 - errors / spread).flatten().tolist()
        best = max(range(len(tried)), key=scores.__getitem__)
        labels = (", ".join(f"{value:g}" for value in values) for values in tried)
        learned = self.learn(total, *tried[best])
        return Fitted(
            map=learned,
            held_out_r2=scores[best],
            chosen=dict(zip(candidates, tried[best], strict=True)),
            curve=dict(zip(labels, scores, strict=True)) if candidates else {},
            facts=self.facts(total, learned),
        )

    @abstractmethod
    def learn(self, training: Part, *chosen: float) -> Map:
        """The map of the training rows, for one value of each name in `chooses`."""

    @abstractmethod
    def judge(self, training: Part, held: Part) -> Tensor:
        """Σ ‖y - prediction‖² over held-out rows, for every combination of candidates [c]."""

    def facts(self, training: Part, learned: Map) -> dict[str, float]:
        """What there is to tell of the map that was learned."""
        del training, learned
        return {}

    def _candidates(self) -> dict[str, tuple[float, ...]]:
        return {name: getattr(self, f"{name}s") for name in self.chooses}


@dataclass(frozen=True)
class MomentFitter(Fitter):
    """A recipe to which sums say everything: its map is linear, and so is judged from sums too."""

    @abstractmethod
    def solve(self, training: Moments, *chosen: float) -> Linear:
        """The map of the training rows, for one value of each name in `chooses`."""

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        """Σ ‖y - prediction‖² over held-out rows, for every combination of candidates [c]."""
        assert not self.chooses, f"{self.name} does not judge its candidates"
        return torch.tensor(squared_error(self.solve(training), held), dtype=torch.float64)

    def learn(self, training: Part, *chosen: float) -> Linear:
        return self.solve(training.moments, *chosen)

    def judge(self, training: Part, held: Part) -> Tensor:
        return self.squared_errors(training.moments, held.moments)


def _splits(
    moments: FoldedMoments, rows: FoldedRows | None
) -> tuple[Part, list[tuple[Part, Part]]]:
    """All rows together, and a (training, held-out) pair for each fold that holds rows."""
    total = moments.total()
    if not total.is_finite():
        raise FitError("cannot fit: the activations hold NaN, infinity or overflowing values")
    held = [number for number, fold in enumerate(moments.folds) if fold.count > 0]
    if len(held) < 2:
        raise FitError(f"cannot fit: {len(held)} of {len(moments.folds)} folds hold rows, need 2")
    nothing = Sample.none(*total.xy.shape)
    samples = rows.folds if rows else (nothing,) * len(moments.folds)

    def part(sums: Moments, numbers: list[int]) -> Part:
        return Part(sums, Sample.joined([nothing, *(samples[number] for number in numbers)]))

    pairs = []
    for number in held:
        fold = moments.folds[number]
        others = [other for other in held if other != number]
        pairs.append((part(total - fold, others), part(fold, [number])))
    return part(total, held), pairs


def squared_error(fitted: Linear, moments: Moments) -> float:
    """Σ ‖y - transform(x)‖² over the rows of the moments."""
    weight, bias = fitted.matrix, fitted.bias.double()
    predicted = (weight @ moments.xx * weight).sum()
    crossed = (weight * moments.xy.mT).sum()
    shifted = 2 * bias @ (weight @ moments.sum_x - moments.sum_y) + moments.count * bias @ bias
    return float(moments.yy.trace() - 2 * crossed + predicted + shifted)


def error_added(added: Tensor, left: Tensor, held: Part) -> float:
    """Σ‖left - added‖² - ‖left‖² over all held rows, as far as the sample [n, ..] of them tells.

    Zero to the last bit where nothing is added.
    """
    times = held.moments.count / max(len(held.rows), 1)
    return times * float((added * (added - 2 * left)).sum(dtype=torch.float64))


def r2_from_moments(fitted: Linear, moments: Moments, mean_y: Tensor | None = None) -> float:
    """1 - SSE/SST of a map on the rows of the moments, SST about mean_y [dt] or their own mean."""
    mean = moments.mean_y if mean_y is None else mean_y
    return 1 - squared_error(fitted, moments) / _spread([(moments, mean)])


def _spread(parts: Iterable[tuple[Moments, Tensor]]) -> float:
    """Σ ‖y - mean_y‖² over the rows of each part, about its mean_y [dt]."""
    spread = size = 0.0
    for rows, mean in parts:
        size += float(rows.yy.trace())
        spread += float(rows.yy.trace() - 2 * mean @ rows.sum_y + rows.count * mean @ mean)
    if spread <= ROUNDING * size:
        raise FitError("cannot judge a fit: the target does not vary over the held-out rows")
    return spread


def through_means(weight: Tensor, moments: Moments) -> Affine:
    """The affine map with this weight [dt, ds] that sends mean source row to mean target row."""
    kept = weight.float().contiguous()  # laid out as it will be read back: to the last bit
    return Affine(kept, (moments.mean_y - kept.double() @ moments.mean_x).float())


def low_rank_through_means(left: Tensor, right: Tensor, moments: Moments) -> Linear:
    """The same with weight left [dt, r] @ right [r, ds].

    Affine where the two hold no fewer numbers than their product.
    """
    if left.numel() + right.numel() >= len(left) * right.shape[1]:
        return through_means(left @ right, moments)
    kept = (left.float().contiguous(), right.float().contiguous())
    reached = kept[0].double() @ (kept[1].double() @ moments.mean_x)
    return LowRank(*kept, (moments.mean_y - reached).float())
