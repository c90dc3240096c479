"""A small map of caches, as a sweep leaves one to be tracked."""

import torch

from alignment.cache_map import CacheMap, Reduction
from alignment.maps import Affine, LowRank


def cache_map(rank: int | None = None) -> CacheMap:
    """Of two sites and what the target knows to two sites, and of a third one to a third."""
    torch.manual_seed(0)
    reductions = {name: Reduction.of(torch.randn(9, 4), 3) for name in ("keys.0", "values.0")}
    reductions["own"] = Reduction.of(torch.randn(9, 6))
    left, right, bias = torch.randn(10, rank or 10), torch.randn(rank or 10, 12), torch.randn(10)
    made = LowRank(left, right, bias) if rank else Affine(left @ right, bias)
    one = Affine(torch.randn(4, 3), torch.randn(4))
    alone = CacheMap({"keys.1": reductions["keys.0"]}, one, {"keys.1": 4})
    return CacheMap(reductions, made, {"keys.0": 5, "values.0": 5}, {"keys.1": alone})
