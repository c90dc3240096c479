"""What every fitter returns, and how each is judged on rows it has not seen.

Shapes: ds source width, dt target width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from alignment.maps import Affine, Map
from alignment.moments import FoldedMoments, Moments


class FitError(ValueError):
    """Moments from which no map can be fitted."""


@dataclass(frozen=True)
class Fitted:
    """A map fitted on all folds, and its R² on held-out folds.

    held_out_r2 is 1 - SSE/SST pooled over folds, each fold predicted from the others, SST being
    about the mean of the training rows. `chosen` holds the hyperparameters picked by it (then it
    is the best of `curve`, hence a little hopeful) and `curve` the R² of every candidate.
    """

    map: Map
    held_out_r2: float
    chosen: dict[str, float] = field(default_factory=dict)
    curve: dict[str, float] = field(default_factory=dict)


class Fitter(Protocol):
    """A recipe: a dataclass of hyperparameters (all with defaults), that fits a map with them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def fit(self, moments: FoldedMoments) -> Fitted:
        """Fit to all folds, choosing by held-out ones. Raises FitError."""
        ...


def splits(moments: FoldedMoments) -> tuple[Moments, list[tuple[Moments, Moments]]]:
    """All rows together, and a (training, held-out) pair for each fold that holds rows."""
    total = moments.total()
    if not total.is_finite():
        raise FitError("cannot fit: the activations hold NaN, infinity or overflowing values")
    held = [fold for fold in moments.folds if fold.count > 0]
    if len(held) < 2:
        raise FitError(f"cannot fit: {len(held)} of {len(moments.folds)} folds hold rows, need 2")
    return total, [(total - fold, fold) for fold in held]


def about(moments: Moments, mean_x: Tensor, mean_y: Tensor) -> Moments:
    """The same rows with mean_x [ds] and mean_y [dt] subtracted from each."""
    sum_x = moments.sum_x - moments.count * mean_x
    sum_y = moments.sum_y - moments.count * mean_y
    return Moments(
        moments.count,
        sum_x,
        sum_y,
        moments.xx - torch.outer(mean_x, moments.sum_x) - torch.outer(sum_x, mean_x),
        moments.xy - torch.outer(mean_x, moments.sum_y) - torch.outer(sum_x, mean_y),
        moments.yy - torch.outer(mean_y, moments.sum_y) - torch.outer(sum_y, mean_y),
    )


def squared_error(fitted: Affine, moments: Moments) -> float:
    """Σ ‖y - transform(x)‖² over the rows of the moments."""
    weight, bias = fitted.weight.double(), fitted.bias.double()
    predicted = (weight @ moments.xx * weight).sum()
    crossed = (weight * moments.xy.mT).sum()
    shifted = 2 * bias @ (weight @ moments.sum_x - moments.sum_y) + moments.count * bias @ bias
    return float(moments.yy.trace() - 2 * crossed + predicted + shifted)


def r2_from_moments(fitted: Affine, moments: Moments, mean_y: Tensor | None = None) -> float:
    """1 - SSE/SST of a map on the rows of the moments, SST about mean_y [dt] or their own mean."""
    return 1 - squared_error(fitted, moments) / _spread(moments, mean_y)


def held_out_r2(fit: Callable[[Moments], Affine], pairs: list[tuple[Moments, Moments]]) -> float:
    """Pooled R² of `fit` on each held-out part of (training, held-out) pairs."""
    error = sum(squared_error(fit(training), held) for training, held in pairs)
    return 1 - error / sum(_spread(held, training.mean_y) for training, held in pairs)


def _spread(moments: Moments, mean_y: Tensor | None) -> float:
    """Σ ‖y - mean_y‖²."""
    mean = moments.mean_y if mean_y is None else mean_y
    spread = moments.yy.trace() - 2 * mean @ moments.sum_y + moments.count * mean @ mean
    if spread <= 0:
        raise FitError("cannot judge a fit: the target does not vary over the held-out rows")
    return float(spread)


def through_means(weight: Tensor, moments: Moments) -> Affine:
    """The affine map with this weight [dt, ds] that sends mean source row to mean target row."""
    kept = weight.float()
    return Affine(kept, (moments.mean_y - kept.double() @ moments.mean_x).float())
