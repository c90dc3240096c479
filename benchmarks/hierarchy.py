"""Whether a concept carried first, and its parts after it, arrive better than each at once.

Between the two models of configs/demo.yaml, in both directions, at the representation role. The
vectors of configs/concepts/ that come of questions about what a model would do are the parts, and
their mean is the concept. At once, each part is carried by ridge. In turn, the concept is carried
by ridge, and what the parts have beside it by another map, fitted to rows from which the concept's
direction has been taken on both sides; the two are added. Judged by the cosine to the vector that
the target has of the same texts: the mean over parts, and a 95 % interval of the difference
(bootstrap over parts).

No real pair here is of unlike scales, so a source of few dimensions is made of the larger: its
first components, and no others. That is what a small model would be at its best.

    python -m benchmarks.hierarchy

Shapes: n rows, ds source width, dt target width, m parts.
"""

from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.fitters.ridge import Ridge
from alignment.maps import Map
from alignment.moments import FoldedMoments
from alignment.spectrum import components
from benchmarks.anchor_curve import FOLDS, PLACE, Model, read_model, rows_of_both, run_of
from benchmarks.record import record
from jobs.texts import gather

PARTS = ("corrigibility", "coordination", "myopia", "survival", "sycophancy", "hallucination")
DIMENSIONS = (8, 32, 128, None)  # of the source; None is all it has
DRAWS = 10_000


def main() -> None:
    """Measure and record."""
    run = run_of(PARTS)
    texts = gather(run)
    models = [read_model(run, texts, number) for number in range(2)]
    found = {}
    for source, target in permutations(models, 2):
        name = f"{source.facts.name} -> {target.facts.name}"
        found[name] = {str(most or "all"): _both(source, target, most) for most in DIMENSIONS}
    record(
        "hierarchy",
        {
            "asked": "the gain of hierarchical mapping at extreme scale ratios, or its lack",
            "place": str(PLACE),
            "parts": PARTS,
            "by dimensions of the source": found,
        },
    )


def _both(source: Model, target: Model, most: int | None) -> dict[str, Any]:
    x, y = (torch.from_numpy(rows) for rows in rows_of_both(source, target))
    mean = x.mean(0)
    first = components(torch.cov(x.double().mT))[1][:, :most].float()  # [ds, k]
    kept = first @ first.mT
    x = mean + (x - mean) @ kept
    folds = np.arange(len(x)) * FOLDS // len(x)  # in blocks: folds share no text, but at an edge
    moments = FoldedMoments.of_rows(x, y, folds, FOLDS)
    parts = _units(source) @ kept
    native = _units(target)
    at_once = Ridge().fit(moments)
    in_turn = _in_turn(moments, at_once.map, parts)
    pairs = [_cosines(each, native) for each in (at_once.map.pushforward(parts), in_turn)]
    gain = pairs[1] - pairs[0]
    drawn = np.random.default_rng(0).integers(len(gain), size=(DRAWS, len(gain)))
    low, high = np.quantile(gain[drawn].mean(1), (0.025, 0.975))
    return {
        "rows": len(x),
        "held_out_r2": at_once.held_out_r2,
        "cosine at once": dict(zip(PARTS, pairs[0].tolist(), strict=True)),
        "cosine in turn": dict(zip(PARTS, pairs[1].tolist(), strict=True)),
        "gain": [float(gain.mean()), float(low), float(high)],
    }


def _in_turn(moments: FoldedMoments, by: Map, parts: Tensor) -> Tensor:
    """Parts [m, ds] as [m, dt]: the concept by the map, and by another what they are beside it."""
    concept = parts.mean(0, keepdim=True)
    carried = by.pushforward(concept)
    without = [_without(direction[0].double()) for direction in (concept, carried)]
    rest = FoldedMoments(tuple(fold.through(*without) for fold in moments.folds))
    return carried + Ridge().fit(rest).map.pushforward(parts - concept)


def _without(direction: Tensor) -> Tensor:
    """The projection [d, d] that takes a direction [d] away."""
    unit = direction / direction.norm()
    return torch.eye(len(unit), dtype=torch.float64) - torch.outer(unit, unit)


def _units(model: Model) -> Tensor:
    """Vectors of the parts at length 1 [m, d]."""
    vectors = torch.from_numpy(np.stack([model.vectors[name] for name in PARTS])).float()
    return vectors / vectors.norm(dim=1, keepdim=True)


def _cosines(carried: Tensor, native: Tensor) -> np.ndarray:
    """[m]"""
    return torch.cosine_similarity(carried, native, dim=1).double().numpy()


if __name__ == "__main__":
    main()
