"""How the heads of one layer are told out to those of another, where the layout is not learned.

The target's heads read what the scheme gives each of them of one layer of the source, and a ridge
regression each does the rest. A learned layout, which reads all heads of the layer, is
`cache_fit.fit_caches`.

Shapes: Hs and Ht heads of w and v features, D = Hs w features of the layer, T = Ht v of the site.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from alignment.cache_fit import NEAR_LAMBDAS, Fit, fit_caches
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.maps import Affine


def split(ours: int, head: int, theirs: int) -> Tensor:
    """The source's heads that serve the same share of the query heads, one a row [.., Hs].

    With grouped queries the n-th of Ht heads serves the n-th part of these, in both models.
    """
    first, last = head * ours // theirs, math.ceil((head + 1) * ours / theirs)
    return torch.eye(ours, dtype=torch.float64)[first:last]


def merged(r2: Tensor) -> Tensor:
    """One head: the mean of all, each weighed by how well it tells of the target's [1, Hs]."""
    good = r2.clamp_min(0.0)
    return (good / good.sum() if good.sum() > 0 else torch.full_like(r2, 1 / len(r2)))[None]


def fit_heads(
    training: CacheMoments,
    held: CacheMoments,
    layer: tuple[str, Reduction],
    site: str,
    widths: tuple[int, int],
) -> dict[str, Fit]:
    """By scheme, what is fitted to a site of the target from one layer of the source.

    `layer` is its name, and how it is reduced: every feature is there. `widths` are w and v;
    nothing is fitted where one side is not made of heads so wide.

    Raises:
        FitError: rows that are not finite.
    """
    name, reduced = layer
    (inputs, outputs), (wide, out) = training.xy.shape, widths
    if inputs % wide or outputs % out:
        return {}
    ours, theirs = inputs // wide, outputs // out
    apart = torch.eye(wide, dtype=torch.float64)
    single = torch.eye(ours, dtype=torch.float64)

    def fitted(head: int, reads: Tensor) -> tuple[Tensor, Tensor, float, float]:
        """Weight [v, D], bias [v], λ and R² of one head by what it reads [.., Hs]."""
        turn = torch.kron(reads, apart)
        some = slice(head * out, (head + 1) * out)
        plain = {"": Reduction(torch.zeros(len(turn)), torch.ones(len(turn)))}
        found = fit_caches(
            _through(training, turn, some),
            _through(held, turn, some),
            plain,
            {"": out},
            NEAR_LAMBDAS,
        )
        by = found.map.map
        assert isinstance(by, Affine), "what is fitted is of full rank"
        weight = (by.weight * found.map.reductions[""].scale).double() @ turn
        return weight.float(), by.bias, found.lambdas[""], found.held_out_r2[""]

    spread = held.about(training.mean_x, training.mean_y).yy.view(theirs, out).sum(1)
    alone = torch.tensor(
        [[fitted(head, single[[one]])[3] for one in range(ours)] for head in range(theirs)],
        dtype=torch.float64,
    )
    schemes = {
        "split": [split(ours, head, theirs) for head in range(theirs)],
        "merged": [merged(each) for each in alone],
    }
    result = {}
    for scheme, reads in schemes.items():
        weights, biases, lambdas, r2 = zip(*map(fitted, range(theirs), reads), strict=True)
        by = Affine(torch.cat(weights), torch.cat(biases))
        result[scheme] = Fit(
            CacheMap({name: reduced}, by, {site: outputs}),
            {f"{site} head {head}": value for head, value in enumerate(lambdas)},
            {site: float((torch.tensor(r2, dtype=torch.float64) * spread).sum() / spread.sum())},
        )
    return result


def _through(of: CacheMoments, turn: Tensor, some: slice) -> CacheMoments:
    """The same rows with turn [.., D] @ each input, and some of the outputs."""
    part = of.of_outputs(some)
    xx, xy = turn @ part.xx @ turn.mT, turn @ part.xy
    return replace(part, sum_x=turn @ part.sum_x, xx=xx, xy=xy)
