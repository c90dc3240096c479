"""Files of a small map of caches, as a sweep leaves them to be tracked."""

import hashlib
import json
from pathlib import Path

import torch

from alignment.cache_map import CacheMap, Reduction
from alignment.maps import Affine, LowRank


def cache_map(rank: int | None = None) -> CacheMap:
    """Of two sites and what the target knows, to two sites."""
    torch.manual_seed(0)
    reductions = {name: Reduction.of(torch.randn(9, 4), 3) for name in ("keys.0", "values.0")}
    reductions["own"] = Reduction.of(torch.randn(9, 6))
    left, right, bias = torch.randn(10, rank or 10), torch.randn(rank or 10, 12), torch.randn(10)
    made = LowRank(left, right, bias) if rank else Affine(left @ right, bias)
    return CacheMap(reductions, made, {"keys.0": 5, "values.0": 5})


def save_cache(of: CacheMap, directory: Path) -> None:
    """Write the files of a cache cell."""
    directory.mkdir(parents=True, exist_ok=True)
    data = of.to_bytes(16)
    (directory / "cache_map.safetensors").write_bytes(data)
    record = {"kind": "cache", "formula": "", "reads": of.reads, "writes": of.writes}
    record["sha256"] = hashlib.sha256(data).hexdigest()
    (directory / "cache_map.json").write_text(json.dumps(record))
