"""Texts to token ids that line up in a batch, and back to the characters they stand for.

Shapes: b texts, t tokens of the longest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actors.engine import Engine

Span = tuple[int, int]


class TextError(ValueError):
    """A text that this model cannot read as asked; one line says which and why."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids [b, t], padded on the right; tokens of each text; their (start, end) characters.

    Tokens that stand for no text (a first token the model wants, say) have a span of (0, 0).
    """

    ids: Tensor
    lengths: tuple[int, ...]
    spans: tuple[list[Span], ...]


def encode(engine: Engine, texts: Sequence[str]) -> Encoded:
    """As the model's own tokenizer reads each text alone; cut off at the end of its context.

    Raises:
        TextError: a text of which the tokenizer makes no token.
    """
    out = engine.tokenizer(
        list(texts), return_offsets_mapping=True, truncation=True, max_length=engine.context
    )
    ids: list[list[int]] = out["input_ids"]
    lengths = tuple(len(each) for each in ids)
    if 0 in lengths:
        raise TextError(f"text {lengths.index(0)} of {len(texts)} is empty: it has no token")
    padded = torch.zeros(len(ids), max(lengths), dtype=torch.long)
    for row, each in enumerate(ids):
        padded[row, : len(each)] = torch.tensor(each)
    spans: list[list[Span]] = out["offset_mapping"]
    return Encoded(padded.to(engine.device), lengths, tuple(spans))


def first_tokens(engine: Engine, prompts: Sequence[str], words: Sequence[str]) -> list[set[int]]:
    """For each prompt, the tokens with which this tokenizer begins any of the words after it.

    Raises:
        TextError: a prompt after which no token begins, since it flows into the word that follows.
    """
    followed = [f"{prompt} {word}" for prompt in prompts for word in words]
    if not followed:
        return [set() for _ in prompts]
    encoded = engine.tokenizer(followed, return_offsets_mapping=True)
    found: list[set[int]] = []
    spans: list[list[Span]] = encoded["offset_mapping"]
    for number, prompt in enumerate(prompts):
        begun: set[int] = set()
        for row in range(number * len(words), (number + 1) * len(words)):
            at = next(at for at, (_, end) in enumerate(spans[row]) if end > len(prompt))
            if spans[row][at][0] < len(prompt):
                raise TextError(
                    f"prompt {prompt!r}: its end shares a token with the word that comes next"
                )
            begun.add(encoded["input_ids"][row][at])
        found.append(begun)
    return found
