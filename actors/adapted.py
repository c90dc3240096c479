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

PROMPTS_A_PASS = 32
Updates = Mapping[str, Update]


def foreseen_with(
    engine: Engine, examples: Sequence[Example], adapters: Sequence[Updates]
) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each example under each adapter, float64 [k, n], and its judged tokens, int64 [n].

    Raises:
        TextError: an example has no token.
        PartError: the model is not whole.
    """
    found, tokens = np.zeros((len(adapters), len(examples))), np.zeros(len(examples), np.int64)
    for row, updates in enumerate(adapters):
        with adapting(engine, updates):
            found[row], tokens = foreseen(engine, examples)
    return found, tokens


def written_with(
    engine: Engine, prompts: Sequence[str], adapters: Sequence[Updates], max_new_tokens: int
) -> list[list[str]]:
    """What comes after each prompt under each adapter: see `continued`."""
    found = []
    for updates in adapters:
        with adapting(engine, updates):
            found.append(continued(engine, prompts, max_new_tokens))
    return found


@torch.inference_mode()
def continued(
    engine: Engine, prompts: Sequence[str], max_new_tokens: int, nucleus: float | None = None
) -> list[str]:
    """What comes after each prompt, without a chat template: greedily, or drawn from the likeliest
    tokens that have such a share of all chances together (arXiv 1904.09751).

    Raises:
        TextError: a prompt of which the tokenizer makes no token.
    """
    end = engine.tokenizer.eos_token_id
    drawn = {} if nucleus is None else {"top_p": nucleus, "top_k": 0}
    config = GenerationConfig(
        do_sample=nucleus is not None,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end,
        **drawn,
    )
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found = [""] * len(prompts)
    for start in range(0, len(prompts), PROMPTS_A_PASS):
        numbers = by_length[start : start + PROMPTS_A_PASS]
        texts = _continued(engine, [prompts[number] for number in numbers], config)
        for number, text in zip(numbers, texts, strict=True):
            found[number] = text
    return found


def _continued(engine: Engine, prompts: Sequence[str], config: GenerationConfig) -> list[str]:
    encoded = encode(engine, prompts)
    ids, there = torch.zeros_like(encoded.ids), torch.zeros_like(encoded.ids)
    for row, length in enumerate(encoded.lengths):  # what is empty goes to the left
        ids[row, -length:] = encoded.ids[row, :length]
        there[row, -length:] = 1
    run = cast(Callable[..., Tensor], engine.model.generate)
    out = run(inputs=ids, attention_mask=there, generation_config=config)
    width, texts = ids.shape[1], []
    for row, length in zip(out.tolist(), encoded.lengths, strict=True):
        prompt, after = row[width - length : width], row[width:]
        # The prompt is decoded too: some tokenizers drop a space at the start of what they decode.
        before, whole = engine.tokenizer.batch_decode(
            [prompt, prompt + after], skip_special_tokens=True
        )
        texts.append(whole.removeprefix(before))
    return texts
