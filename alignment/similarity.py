"""How alike two models are, layer by layer, on rows that line up, with a permutation null.

Two measures, each over every pair of layers:

- debiased linear CKA (Kornblith et al. 2019, arXiv:1905.00414, with the unbiased HSIC of Song et
  al. 2012), on features as they are and on features standardised one by one. The plain (biased)
  CKA of unrelated features is near d / (n + d), and a few massive activations dominate the raw
  one, hence the debiasing and both versions;
- mutual k-nearest neighbours under cosine distance (Huh et al. 2024, arXiv:2405.07987).

Shapes: n rows, d width, Ls source layers, Lt target layers, L layers of all models, b rows of a
block.

Gram matrices are made a block at a time for all layers, upper triangle only: whatever n is they
take about L * 2 MB, beside one copy of the rows. Products are float32, sums over blocks float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, combinations_with_replacement, pairwise

import numpy as np
import torch
from safetensors import torch as safetensors_torch
from torch import Tensor

from alignment.neighbours import TINY, Neighbours, overlaps

# About this many rows a side: wide enough for fast products and a fast top-k.
BLOCK_ROWS = 704
# The permutation test uses at most this many rows, drawn once.
NULL_ROWS = 384


@dataclass(frozen=True, eq=False)
class Similarity:
    """All layer pairs of two models over the same rows.

    cka_raw, cka (features standardised), mutual_knn (standardised, in [0, 1]; chance is about
    k / n) and p_value: [Ls, Lt] float64. null_95: 95 % quantile, over permutations of the rows,
    of the greatest standardised CKA of any layer pair. rows: how many rows were compared.
    """

    cka_raw: Tensor
    cka: Tensor
    mutual_knn: Tensor
    p_value: Tensor
    null_95: float
    rows: int

    def to_bytes(self) -> bytes:
        """A safetensors file; `from_bytes` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return safetensors_torch.save(
            {k: torch.as_tensor(v, dtype=torch.float64).contiguous() for k, v in values.items()}
        )

    @property
    def swapped(self) -> Similarity:
        """The same with source and target the other way round."""
        return Similarity(
            self.cka_raw.mT,
            self.cka.mT,
            self.mutual_knn.mT,
            self.p_value.mT,
            self.null_95,
            self.rows,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Similarity:
        found = safetensors_torch.load(data)
        null_95, rows = float(found.pop("null_95")), int(found.pop("rows"))
        return cls(**found, null_95=null_95, rows=rows)


def compare(
    source: Sequence[Tensor],
    target: Sequence[Tensor],
    *,
    k: int = 10,
    permutations: int = 100,
    seed: int = 0,
) -> Similarity:
    """Compare every layer of source (each [n, ds]) with every layer of target (each [n, dt]).

    p_value is corrected for looking at all pairs (maxT): the share of row permutations whose
    greatest CKA over the whole matrix reaches the pair's own, both on the same at most 384 rows,
    so the test is exact there. null_95 is from those rows too; a null from fewer rows is wider,
    hence conservative beside the matrices, which use all rows. Rows count as exchangeable.
    A layer that does not vary has CKA 0. ValueError when there are too few rows.
    """
    (found,) = compare_all((source, target), [(0, 1)], k=k, permutations=permutations, seed=seed)
    return found


def compare_all(
    models: Sequence[Iterable[Tensor]],
    pairs: Sequence[tuple[int, int]],
    *,
    k: int = 10,
    permutations: int = 100,
    seed: int = 0,
) -> list[Similarity]:
    """What `compare` finds of several pairs of models, by their numbers, over the same rows.

    What takes longest, the Gram matrices and the nearest rows of each layer, is made once for every
    model. `models` are gone through once, so that they need not lie in memory beside what is made
    of them.
    """
    assert permutations > 0, "a null needs permutations"
    views = [[_centre(x) for x in layers] for layers in models]
    rows = len(views[0][0])
    assert all(len(x) == rows for view in views for x in view), "the rows of all must line up"
    _require_rows(rows, k)
    raw, _ = _all_pairs(views, pairs, None)
    for view in views:
        for x in view:
            _standardise_(x)  # in place: there is room for one copy of the rows
    standardised, neighbours = _all_pairs(views, pairs, k)
    found = []
    for (source, target), cka_raw, cka in zip(pairs, raw, standardised, strict=True):
        generator = np.random.default_rng(seed)
        chosen = torch.from_numpy(np.sort(generator.permutation(rows)[:NULL_ROWS]))
        some = [_centre(x[chosen]) for x in (*views[source], *views[target])]
        observed, null = _permutation_null(some, len(views[source]), permutations, generator)
        reached = (null[:, None, None] >= observed).sum(0)
        found.append(
            Similarity(
                cka_raw=cka_raw,
                cka=cka,
                mutual_knn=overlaps(neighbours[source], neighbours[target]),
                p_value=(1 + reached).double() / (1 + permutations),
                null_95=float(null.quantile(0.95)),
                rows=rows,
            )
        )
    return found


def standardise(x: Tensor) -> Tensor:
    """Features of x [n, d] with mean 0 and variance 1, or 0 where one does not vary; float32."""
    return _standardise_(_centre(x))


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """Debiased linear CKA of x [n, dx] and y [n, dy], in [-1, 1]; near 0 when unrelated."""
    _require_rows(len(x), 0)
    (found,), _ = _all_pairs([[_centre(x)], [_centre(y)]], [(0, 1)], None)
    return float(found)


def mutual_knn(x: Tensor, y: Tensor, k: int = 10) -> float:
    """Mean share of each row's k nearest rows (cosine, itself left out) common to x and y.

    x [n, dx] and y [n, dy] are taken as they are: not centred, not standardised.
    """
    _require_rows(len(x), k)
    _, (near, others) = _all_pairs([[x.float()], [y.float()]], [], k)
    return float(overlaps(near, others))


def _require_rows(rows: int, k: int) -> None:
    if rows < max(4, k + 1):
        raise ValueError(f"{rows} rows are too few to compare: need at least {max(4, k + 1)}")


def _centre(x: Tensor) -> Tensor:
    """Mean row 0 and mean square 1: CKA sees neither, squares in float32 do."""
    mean = x.mean(0).float()
    rows = x.float() - mean
    spread = rows.square().mean(0).sqrt_()
    # Spread that is only the rounding of a constant feature is none.
    varies = spread > mean.abs() * 4 * torch.finfo(torch.float32).eps
    overall = (spread * varies).square_().mean().sqrt_().clamp_min_(TINY)
    return rows.mul_(varies / overall)


def _standardise_(rows: Tensor) -> Tensor:
    """Give each feature of centred rows variance 1, in place."""
    spread = rows.square().mean(0).sqrt_()
    return rows.mul_(torch.where(spread > 0, 1 / spread, 0.0))


def _all_pairs(
    models: Sequence[list[Tensor]], pairs: Sequence[tuple[int, int]], k: int | None
) -> tuple[list[Tensor], list[list[Neighbours]]]:
    """CKA [Ls, Lt] of each pair of models, and the k nearest neighbours of all if k is set."""
    layers = [x for model in models for x in model]
    ends = list(accumulate(map(len, models), initial=0))
    own = [slice(*both) for both in pairwise(ends)]
    n = len(layers[0])
    pieces = torch.arange(n).tensor_split(math.ceil(n / BLOCK_ROWS))
    parts = [slice(int(piece[0]), int(piece[-1]) + 1) for piece in pieces]
    finders = [Neighbours(x, k) for x in layers] if k else []
    inner = [
        torch.zeros(len(models[one]), len(models[other]), dtype=torch.float64)
        for one, other in pairs
    ]
    squares = torch.zeros(len(layers), dtype=torch.float64)
    room = torch.empty(len(layers), len(pieces[0]) ** 2)  # [L, b * b]
    for left, right in combinations_with_replacement(parts, 2):
        rows, columns = left.stop - left.start, right.stop - right.start
        flat = room[:, : rows * columns]
        for index, x in enumerate(layers):
            block = flat[index].view(rows, columns)
            torch.mm(x[left], x[right].mT, out=block)
            if left == right:
                block.fill_diagonal_(0)
            if finders:
                finders[index].offer(block, left, right)
        times = 1 if left == right else 2  # a block off the diagonal stands for its mirror too
        squares += times * torch.linalg.vector_norm(flat, dim=1).double().square()
        for sums, (one, other) in zip(inner, pairs, strict=True):
            sums += times * (flat[own[one]] @ flat[own[other]].mT).double()
    row_sums = torch.stack([_row_sums(x) for x in layers])
    norms = _norms(squares, row_sums)
    found = [
        _normalise(
            _hsic(sums, row_sums[own[one]], row_sums[own[other]]),
            torch.outer(norms[own[one]], norms[own[other]]),
        )
        for sums, (one, other) in zip(inner, pairs, strict=True)
    ]
    return found, [finders[of] for of in own]


def _row_sums(x: Tensor) -> Tensor:
    """Row sums [n] of the Gram matrix of x [n, d] with its diagonal set to zero."""
    return (x @ x.sum(0) - torch.linalg.vector_norm(x, dim=1).square()).double()


def _hsic(inner: Tensor, left_sums: Tensor, right_sums: Tensor) -> Tensor:
    """Unbiased HSIC, up to the factor 1 / (n (n - 3)) that CKA does not see (Song et al., eq. 5).

    inner: sums of K * L over the Gram matrices, diagonals set to zero; *_sums: their row sums.
    """
    n = left_sums.shape[1]
    totals = torch.outer(left_sums.sum(1), right_sums.sum(1)) / ((n - 1) * (n - 2))
    return inner + totals - left_sums @ right_sums.mT * (2 / (n - 2))


def _norms(squares: Tensor, sums: Tensor) -> Tensor:
    """Root of each layer's HSIC with itself [L], of its squares [L] and row sums [L, n]."""
    n = sums.shape[1]
    totals = sums.sum(1).square() / ((n - 1) * (n - 2))
    hsic = squares + totals - sums.square().sum(1) * (2 / (n - 2))
    return hsic.clamp_min(0).sqrt()


def _normalise(hsic: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, hsic / scale.clamp_min(TINY), 0.0).clamp(-1, 1)


def _permutation_null(
    layers: list[Tensor], split: int, permutations: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """CKA [Ls, Lt] of centred layers [m, d], and its greatest entry under each permutation.

    A permuted Gram matrix is the old one re-indexed; only its upper triangle is looked at.
    """
    m = len(layers[0])
    first, second = torch.triu_indices(m, m, 1)
    grams = [(x @ x.mT).fill_diagonal_(0) for x in layers]
    sums = torch.stack([_row_sums(x) for x in layers])
    source = torch.stack([gram[first, second] for gram in grams[:split]])  # [Ls, pairs]
    target = torch.stack([gram.flatten() for gram in grams[split:]], dim=1)  # [m * m, Lt]
    norms = _norms(torch.stack([gram.square().sum() for gram in grams]).double(), sums)
    scale = torch.outer(norms[:split], norms[split:])

    def cka(order: Tensor) -> Tensor:
        pairs = order[first] * m + order[second]
        inner = 2 * (source @ target.index_select(0, pairs)).double()
        return _normalise(_hsic(inner, sums[:split], sums[split:, order]), scale)

    orders = (torch.from_numpy(generator.permutation(m)) for _ in range(permutations))
    return cka(torch.arange(m)), torch.stack([cka(order).max() for order in orders])
