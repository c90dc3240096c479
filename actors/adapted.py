"""What a model does with an adapter put on: what it foresees, and what it writes.

Shapes: n examples.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from actors.adapting import adapting
from actors.encoding import encode, of_like_length, said_after
from actors.engine import Engine
from actors.examples import Example, foreseen
from alignment.updates import Update

PROMPTS_A_PASS = 32
TALK = "User: {}\nAssistant:"
Updates = Mapping[str, Update]


def foreseen_with(
    engine: Engine, examples: Sequence[Example], updates: Updates
) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each example, float64 [n], and how many of its tokens are judged, int64 [n].

    Raises:
        TextError: an example has no token.
        PartError: the model is not whole.
    """
    with adapting(engine, updates):
        return foreseen(engine, examples)


def written_with(
    engine: Engine, prompts: Sequence[str], updates: Updates, max_new_tokens: int
) -> list[str]:
    """What comes after each prompt: see `continued`."""
    with adapting(engine, updates):
        return continued(engine, prompts, max_new_tokens)


def answered_with(
    engine: Engine, requests: Sequence[str], updates: Updates, max_new_tokens: int
) -> list[str]:
    """What comes after each request, which is put as the model's chat template does; where it has
    none, as one of two who talk would (`TALK`)."""
    return written_with(engine, asked(engine, requests), updates, max_new_tokens)


def asked(engine: Engine, requests: Sequence[str]) -> list[str]:
    """Requests as prompts of a model."""
    tokenizer = engine.tokenizer
    if tokenizer.chat_template is None:
        return [TALK.format(request) for request in requests]
    begun = (
        tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], add_generation_prompt=True, tokenize=False
        )
        for request in requests
    )
    # A token that begins every text comes when it is encoded.
    return [str(text).removeprefix(tokenizer.bos_token or "") for text in begun]


@torch.inference_mode()
def continued(
    engine: Engine,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    drawn: bool = False,
    least: float = 0.0,
) -> list[str]:
    """What comes after each prompt: greedily, or drawn by chance from all tokens that are at least
    so likely beside the likeliest (min-p, arXiv 2407.01082).

    Raises:
        TextError: a prompt of which the tokenizer makes no token.
    """
    end = engine.tokenizer.eos_token_id
    config = GenerationConfig(
        do_sample=drawn,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end,
        **({"top_p": 1.0, "top_k": 0, "min_p": least} if drawn else {}),
    )
    found = [""] * len(prompts)
    for numbers in of_like_length(prompts, PROMPTS_A_PASS * engine.at_once):
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
        texts.append(said_after(engine, row[width - length :], length))
    return texts
