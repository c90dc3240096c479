"""From a local checkpoint to a live model in this process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers.utils import logging as transformers_logging

from actors.architectures import ARCHITECTURES
from actors.blueprint import UNSTATED_CONTEXT
from actors.catalog import Dtype
from actors.checkpoints import lacks
from actors.discovery import discover, require_decoder
from actors.module_tree import DTYPES, WHOLE, ModuleTree
from cluster.world import World

Held = Literal["whole", "sharded", "offloaded"]
ALONE_PATIENCE = 600.0  # seconds; nobody is waited for

# ALiBi has no end of its own: BLOOM's configuration may state the length it was trained with.
_CONTEXT_NAMES = ("max_position_embeddings", "seq_length", "max_seq_len")


class EngineError(ValueError):
    """The checkpoint cannot be brought to life; one line says why."""


@dataclass(frozen=True, eq=False)
class Engine(ModuleTree):
    """A live causal language model, where things are in it, and its tokenizer."""

    tokenizer: Tokenizer

    @property
    def context(self) -> int:
        """The most tokens of one text that the model was built for."""
        stated = (getattr(self.model.config, name, None) for name in _CONTEXT_NAMES)
        return next((limit for limit in stated if limit is not None), UNSTATED_CONTEXT)


def load(
    checkpoint: Path,
    dtype: Dtype = "float32",
    threads: int = 1,
    held: Held = "whole",
    world: World | None = None,
) -> Engine:
    """Load a checkpoint directory (config.json, safetensors, tokenizer) for inference.

    On the process's GPU if it has one, else on the CPU: `whole`, or over the ranks of a `world`
    `sharded` or `offloaded` (`actors.sharded`). `threads` is set for the whole process, which is
    meant to serve this one model. A family that is not in the table is made out from the live
    model, if it can be; unless it is sharded.

    Raises:
        UnknownArchitecture: it cannot be; says why, and lists the families that are in the table.
        EngineError: there is no fast tokenizer, or the model needs weights that are not there.
        ShardingError, SliceError: it cannot lie over several ranks as asked.
    """
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()
    family = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["model_type"]
    if family not in ARCHITECTURES:
        require_decoder(family)
    tokenizer = _tokenizer(checkpoint)
    if held == "whole":
        model, how = _whole(checkpoint, dtype), WHOLE
    else:
        # Not at the top: DeepSpeed takes seconds to import, and most models do without.
        from actors import sharded

        world = world or World.found("127.0.0.1", 1, ALONE_PATIENCE)  # a world of one
        loads = {"sharded": sharded.load_sharded, "offloaded": sharded.load_offloaded}
        model, how = loads[held](checkpoint, dtype, world)
    model.eval().requires_grad_(False)
    known = ARCHITECTURES.get(family)
    return Engine(model, discover(model) if known is None else known, tokenizer, held=how)


def _tokenizer(checkpoint: Path) -> Tokenizer:
    if not (checkpoint / "tokenizer.json").is_file():
        raise EngineError(
            f"{checkpoint} has no tokenizer.json: a fast tokenizer is needed, as only that tells "
            "where in the text each token is"
        )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def _whole(checkpoint: Path, dtype: Dtype) -> PreTrainedModel:
    model, found = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=DTYPES[dtype],
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if found["missing_keys"]:  # which would be drawn at random
        raise EngineError(f"{checkpoint} {lacks(found['missing_keys'])}")
    if torch.cuda.is_available():
        return model.to("cuda")
    if dtype != "float32":
        model.get_output_embeddings().register_forward_pre_hook(_copied)
    return model


def _copied(_head: nn.Module, read: tuple[Tensor]) -> tuple[Tensor]:
    """As rows of its own: over a slice of a batch, in half precision, a CPU takes ten to a hundred
    times as long."""
    return (read[0].clone(memory_format=torch.contiguous_format),)
