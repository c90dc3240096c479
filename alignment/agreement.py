"""How far the directions of several groups of pairs (domains, languages) agree.

Shapes: k groups, n pairs of a group, d width, b bootstrap draws or permutations of a block.

The direction of a group is the mean of its pairs' differences. With few pairs and a large width
such a mean is mostly noise, so the cosine of two of them is too small, and that of resampled ones
smaller still: their percentiles can lie wholly below the cosine itself. Hence beside the cosine as
measured there is a debiased one, in which a group's squared length is the mean inner product of two
*different* pairs, and which is what more pairs would lead to. The interval is the debiased one's.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from alignment.contrast import Array, DirectionError, require_pairs, sides
from alignment.directions.difference_of_means import DifferenceOfMeans

BLOCK_ELEMENTS = 4_000_000  # of directions held at once, 32 MB
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Matrices [k, k] float64 over the groups in the order of `names`.

    cosine: of the directions as measured. debiased: without the noise of few pairs, in [-1, 1], NaN
    for a group whose direction is lost in it. low, high: 95 % interval of the debiased cosine,
    -1 to 1 where that is NaN. p_value: of the cosine, see `compare`. null_95: 95 % quantile of the
    greatest absolute cosine under the null.
    """

    names: tuple[str, ...]
    cosine: Array
    debiased: Array
    low: Array
    high: Array
    p_value: Array
    null_95: float


def compare(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    draws: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Compare the directions of groups, each given as pairs: positive [n, d] and negative [n, d].

    The interval is a percentile bootstrap over pairs, each group drawn by itself; it is wide rather
    than narrow where noise outweighs the direction. Under the null the two points of every pair
    are swapped at random: which of them is positive means nothing. A p-value is the share of
    permutations whose greatest absolute cosine of any two groups reaches that of these two (maxT,
    so it is corrected for looking at all), and 1 on the diagonal. Results depend on the seed and
    on the groups' names, not on the order of the groups.

    Raises:
        DirectionError: fewer than 2 groups; one that is not at least 2 finite pairs, or whose
            sides do not differ.
    """
    assert min(draws, permutations) > 0, "an interval needs draws, and a null permutations"
    if len(groups) < 2:
        raise DirectionError(f"agreement needs at least 2 groups, and there are {len(groups)}")
    found = [_Group(name, *both, seed) for name, both in groups.items()]
    assert len({group.differences.shape[1] for group in found}) == 1, "groups share one space"
    apart = ~np.eye(len(found), dtype=bool)

    inner, own = _products(found, [group.even() for group in found])
    cosine, debiased = _cosine(inner, _squares(inner))[0], _cosine(inner, own)[0]
    drawn = [_products(found, weights) for weights in _blocks(found, draws, _Group.resampled)]
    low, high = np.quantile(np.concatenate([_cosine(*each) for each in drawn]), _QUANTILES, axis=0)
    swapped = [_products(found, each)[0] for each in _blocks(found, permutations, _Group.swapped)]
    null = np.concatenate([np.abs(_cosine(each, _squares(each))) for each in swapped])
    greatest = null[:, apart].max(axis=1)
    reached = (greatest[:, None, None] >= np.abs(cosine)).sum(axis=0)
    lost = (own[0] <= 0) | (own[0] <= 0)[:, None]
    return Agreement(
        names=tuple(groups),
        cosine=cosine,
        debiased=np.where(lost, np.nan, debiased),
        low=np.where(lost, -1.0, low),
        high=np.where(lost, 1.0, high),
        p_value=np.where(apart, (1 + reached) / (1 + permutations), 1.0),
        null_95=float(np.quantile(greatest, 0.95)),
    )


class _Group:
    """Differences [n, d] of a group's pairs, and weights [b, n] that make directions of them."""

    def __init__(self, name: str, positive: np.ndarray, negative: np.ndarray, seed: int) -> None:
        try:
            above, below = sides(positive, negative)
            require_pairs(above, below)
            DifferenceOfMeans().direction(above, below)  # refuses sides that do not differ
        except DirectionError as error:
            raise DirectionError(f"group {name}: {error}") from None
        self.differences = above - below
        self.squares = np.square(self.differences).sum(axis=1)
        self.count = len(above)
        self._seed = [seed, *name.encode()]

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)

    def even(self) -> Array:
        return np.full((1, self.count), 1 / self.count)

    def resampled(self, generator: np.random.Generator, size: int) -> Array:
        return generator.multinomial(self.count, self.even()[0], size) / self.count

    def swapped(self, generator: np.random.Generator, size: int) -> Array:
        return (2 * generator.integers(0, 2, (size, self.count)) - 1) / self.count


def _blocks(
    groups: list[_Group],
    total: int,
    draw: Callable[[_Group, np.random.Generator, int], Array],
) -> Iterator[list[Array]]:
    """Weights [b, n] of every group, a block at a time, `total` in all."""
    generators = [group.generator() for group in groups]
    elements = sum(group.count + group.differences.shape[1] for group in groups)
    block = max(1, BLOCK_ELEMENTS // elements)
    for start in range(0, total, block):
        size = min(block, total - start)
        yield [draw(*each, size) for each in zip(groups, generators, strict=True)]


def _products(groups: list[_Group], weights: list[Array]) -> tuple[Array, Array]:
    """Inner products [b, k, k] of weighted means, and their squared lengths without noise [b, k].

    The latter is the weighted mean inner product of two different pairs: what a pair has with
    itself is left out.
    """
    both = list(zip(groups, weights, strict=True))
    means = np.stack([each @ group.differences for group, each in both], axis=1)  # [b, k, d]
    inner = means @ means.swapaxes(1, 2)
    itself = np.stack([np.square(each) @ group.squares for group, each in both], axis=1)
    others = np.stack([1 - np.square(each).sum(axis=1) for _, each in both], axis=1)
    # A draw that is one pair many times has no two different pairs, and no length.
    own = (_squares(inner) - itself) / np.where(others > 0, others, 1)
    return inner, own


def _squares(inner: Array) -> Array:
    return inner.diagonal(axis1=1, axis2=2)


def _cosine(inner: Array, squares: Array) -> Array:
    """[b, k, k] from inner products [b, k, k] and squared lengths [b, k], in [-1, 1].

    A squared length that is not above 0 has the limit that the cosine goes to: 1, -1 or 0.
    """
    product = squares[:, :, None] * squares[:, None, :]
    real = (squares > 0)[:, :, None] & (squares > 0)[:, None, :]
    scaled = np.divide(inner, np.sqrt(np.where(real, product, 1)), where=real, out=np.sign(inner))
    return scaled.clip(-1, 1)
