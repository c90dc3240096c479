"""What every rank of a model that is cut up would hold and read, worked out without its weights."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

# Nothing is computed here: a plan must not reach for a GPU that this machine may have.
os.environ["DS_ACCELERATOR"] = "cpu"

import torch
import torch.distributed as dist
from huggingface_hub import split_torch_state_dict_into_shards
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from actors.checkpoints import Stored, stored_tensors
from actors.module_tree import DTYPES
from actors.sharded import cut, shares
from actors.slices import Piece, Share, lay_out, pieces

FILE_SIZE = "5GB"  # of the files of a checkpoint that is only planned


@dataclass(frozen=True)
class RankPlan:
    """What one rank holds, parameter by parameter, and the pieces of files that it reads for it.

    `itemsize` is of what it holds, in bytes; what is stored has its own.
    """

    rank: int
    shares: Mapping[str, Share]
    pieces: Sequence[Piece]
    itemsize: int

    @property
    def held(self) -> int:
        """Bytes of all its parameters."""
        return self.itemsize * sum(_size(share) for share in self.shares.values())

    @property
    def read(self) -> int:
        """Bytes that it reads from files."""
        return sum(piece.bytes for piece in self.pieces)

    @cached_property
    def by_file(self) -> dict[str, list[Piece]]:
        """The pieces in the order of the files."""
        found: dict[str, list[Piece]] = {}
        for piece in sorted(self.pieces, key=lambda each: (each.stored.file, each.stored.key)):
            found.setdefault(piece.stored.file, []).append(piece)
        return found


def plan_ranks(
    config: Mapping[str, Any], dtype: str, ranks: int, checkpoint: Path | None = None
) -> list[RankPlan]:
    """The plan of every rank, by the code that loads a model: only the values are missing.

    Where there is no checkpoint, its files are laid out as transformers would write them, in
    `dtype` and files of FILE_SIZE. This process becomes a rank of a world that is not there: it can
    plan no other number of ranks.

    Raises:
        ShardingError, SliceError: the model cannot be cut so, or is not what the checkpoint holds.
    """
    known = dict(config)
    whole = AutoConfig.for_model(known.pop("model_type"), **known)
    kind = DTYPES[dtype]
    if not dist.is_initialized():
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    assert dist.get_world_size() == ranks
    model = cut(whole, kind, ranks, 0)
    stored = stored_tensors(checkpoint) if checkpoint else _as_written(whole, kind)
    layout = lay_out(stored, model)
    plans = []
    for rank in range(ranks):
        held = shares(model, ranks, rank)
        plans.append(RankPlan(rank, held, pieces(held, layout), kind.itemsize))
    return plans


def _size(share: Share) -> int:
    along = sum(end - start for start, end in share.ranges)
    return along * prod(size for dim, size in enumerate(share.shape) if dim != share.dim)


def _as_written(config: Any, dtype: torch.dtype) -> list[Stored]:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    # Parts of one tensor would be taken for one.
    written = {
        name: torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for name, tensor in revert_weight_conversion(model, state).items()
    }
    files = split_torch_state_dict_into_shards(written, max_shard_size=FILE_SIZE)
    where = {name: file for file, names in files.filename_to_tensors.items() for name in names}
    return [
        Stored(where[name], name, tuple(tensor.shape), tensor.element_size())
        for name, tensor in written.items()
    ]
