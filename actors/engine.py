"""From a local checkpoint to a live model in this process.

Shapes: b texts, t tokens, d width of the residual stream, v vocabulary (or the tokens asked for).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers.utils import logging as transformers_logging

from actors.architectures import Architecture, architecture_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EngineError(ValueError):
    """The checkpoint cannot be brought to life; one line says why."""


@dataclass(frozen=True, eq=False)
class Engine:
    """A causal language model, its tokenizer, and where things are in it."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    architecture: Architecture

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder's blocks, first to last."""
        blocks = self.model.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.model.config.hidden_size

    @property
    def context(self) -> int:
        """The most tokens of one text that the model was built for."""
        return self.model.config.max_position_embeddings

    def states(self, ids: Tensor) -> Tensor:
        """Token ids [b, t], padded on the right, to what the head reads, [b, t, d].

        No mask is passed: attention is causal, so that padding on the right cannot reach a real
        token, and without a mask torch takes its fast path.
        """
        return self.model.get_submodule(self.architecture.backbone)(
            input_ids=ids, use_cache=False
        ).last_hidden_state

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """What `states` returned, [..., d], to float32 logits [..., v], or of `tokens` [v] only."""
        head = self.model.get_submodule(self.architecture.head)
        assert isinstance(head, nn.Linear)
        weight = head.weight if tokens is None else head.weight[tokens]
        bias = head.bias if tokens is None or head.bias is None else head.bias[tokens]
        logits = nn.functional.linear(states, weight, bias).float()
        cap: float | None = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def load(
    checkpoint: Path, dtype: Literal["float32", "bfloat16"] = "float32", threads: int = 1
) -> Engine:
    """Load a checkpoint directory (config.json, safetensors, tokenizer) for inference on the CPU.

    `threads` is set for the whole process, which is meant to serve this one model.

    Raises:
        UnknownArchitecture: the family is not supported; lists those that are.
        EngineError: there is no fast tokenizer.
    """
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    architecture = architecture_of(config.get("model_type", ""))
    if not (checkpoint / "tokenizer.json").is_file():
        raise EngineError(
            f"{checkpoint} has no tokenizer.json: a fast tokenizer is needed, as only that tells "
            "where in the text each token is"
        )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    assert isinstance(tokenizer, Tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=DTYPES[dtype], local_files_only=True, use_safetensors=True
    )
    return Engine(model.eval().requires_grad_(False), tokenizer, architecture)
