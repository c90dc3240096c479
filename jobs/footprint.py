"""What a model weighs, spread over GPUs: bytes of weights, of its cache, and of a batch in flight.

Tensor parallelism as DeepSpeed's does it: the blocks are divided, the input embedding is on every
rank, the head is divided (a tied one is copied first).
"""

import os
from dataclasses import dataclass
from math import ceil

from actors.blueprint import BYTES, Blueprint

# From a local disk to a device: an assumption, said beside what follows from it.
LOAD_BYTES_PER_SECOND = 1e9
CHUNK = 4096  # tokens of a long text that are read at once
# Live at once in a block, beside what attention keeps: the stream and its copies, the MLP's inner.
_STREAM_COPIES = 4
_MLP_COPIES = 2


def memory_here() -> int:
    """Bytes that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True)
class Footprint:
    """Bytes on each of `gpus` devices, for `rows` texts of `tokens` tokens at once."""

    gpus: int
    weights: int
    cache: int
    batch: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.batch


def footprint(
    model: Blueprint,
    *,
    dtype: str,
    gpus: int = 1,
    tokens: int,
    rows: int = 1,
    keeps_cache: bool = True,
    logits: int = 1,
) -> Footprint:
    """Of one model on each of the devices it is spread over.

    A text longer than CHUNK is read in pieces; its cache is kept whole. `logits` is the number of
    places a row at which the whole vocabulary is scored (in float32).
    """
    size = BYTES[dtype]
    cache = model.kv_bytes(tokens, dtype) * rows if keeps_cache else 0
    # A KV head is never split: with fewer of them than devices, some devices hold a copy.
    divided = ceil(model.kv_heads / gpus) / model.kv_heads
    at_once = rows * min(tokens, CHUNK)
    stream = at_once * model.width * _STREAM_COPIES
    mlp = at_once * model.mlp_width * _MLP_COPIES
    scores = rows * logits * model.vocabulary * BYTES["float32"]
    return Footprint(
        gpus=gpus,
        weights=weights_per_gpu(model, gpus) * size,
        cache=ceil(cache * divided),
        batch=(stream + ceil(mlp / gpus)) * size + scores,
    )


def weights_per_gpu(model: Blueprint, gpus: int) -> int:
    """Parameters that one of `gpus` devices holds."""
    if gpus == 1:
        return model.parameters
    embedding = model.vocabulary * model.width
    # The head is among the divided parameters where it is its own matrix, and is added where not.
    divided = model.parameters - embedding + (embedding if model.tied else 0)
    return embedding + ceil(divided / gpus)
