"""What a model does with each of several adapters put on: what it foresees, and what it writes.

Shapes: k adapters, n examples or prompts, t tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from actors.adapting import adapting
from actors.encoding import encode
from actors.engine import Engine
from actors.examples import Example, foreseen
from alignment.updates import Update

PROMPTS_A_PASS = 16
Updates = Mapping[str, Update]


def foreseen_with(
    engine: Engine, examples: Sequence[Example], adapters: Sequence[Updates]
) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each example under each adapter, float64 [k, n], and its judged tokens, int64 [n].

    Raises:
        TextError: an example has no token.
        ShardingError: an adapter cannot be put on a model that is held like this.
    """
    found, tokens = np.zeros((len(adapters), len(examples))), np.zeros(len(examples), np.int64)
    for row, updates in enumerate(adapters):
        with adapting(engine, updates):
            found[row], tokens = foreseen(engine, examples)
    return found, tokens


@torch.inference_mode()
def written_with(
    engine: Engine, prompts: Sequence[str], adapters: Sequence[Updates], max_new_tokens: int
) -> list[list[str]]:
    """What comes after each prompt under each adapter, greedily and without a chat template.

    Raises:
        TextError: a prompt of which the tokenizer makes no token.
        ShardingError: an adapter cannot be put on a model that is held like this.
    """
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    written = [[""] * len(prompts) for _ in adapters]
    for start in range(0, len(prompts), PROMPTS_A_PASS):
        numbers = by_length[start : start + PROMPTS_A_PASS]
        ids, there = _on_the_left(engine, [prompts[number] for number in numbers])
        for of, updates in zip(written, adapters, strict=True):
            with adapting(engine, updates):
                texts = _written(engine, ids, there, max_new_tokens)
            for number, text in zip(numbers, texts, strict=True):
                of[number] = text
    return written


def _on_the_left(engine: Engine, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and where they are, both [n, t], with what is empty on the left."""
    encoded = encode(engine, prompts)
    ids, there = torch.zeros_like(encoded.ids), torch.zeros_like(encoded.ids)
    for row, length in enumerate(encoded.lengths):
        ids[row, -length:] = encoded.ids[row, :length]
        there[row, -length:] = 1
    return ids, there


def _written(engine: Engine, ids: Tensor, there: Tensor, max_new_tokens: int) -> list[str]:
    tokenizer = engine.tokenizer
    run = cast(Callable[..., Tensor], engine.model.generate)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    out = run(inputs=ids, attention_mask=there, generation_config=config)
    texts = []
    for row, mask in zip(out, there, strict=True):
        length = len(mask)
        prompt = row[:length][mask.bool()]
        # The prompt is decoded too: some tokenizers drop a space at the start of what they decode.
        before, whole = tokenizer.batch_decode(
            [prompt.tolist(), [*prompt.tolist(), *row[length:].tolist()]], skip_special_tokens=True
        )
        texts.append(whole.removeprefix(before))
    return texts
