"""Texts to token ids that line up in a batch, and back to the characters they stand for.

Shapes: b texts, t tokens of the longest one; p prompts, w words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.engine import Engine
from cluster.pace import paced

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


def of_like_length(texts: Sequence[str], count: int) -> Iterator[list[int]]:
    """The numbers of texts that go together, so many at a time: little is padded."""
    by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for start in paced(range(0, len(texts), count)):
        yield by_length[start : start + count]


def beginnings(engine: Engine, texts: Sequence[str], tokens: int) -> list[str]:
    """As much of each text as its first tokens hold, so many of them.

    Raises:
        TextError: a text of which the tokenizer makes no token.
    """
    ends = (spans[:tokens][-1][1] for text in texts for spans in encode(engine, [text]).spans)
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


def said_after(engine: Engine, ids: list[int], prompt: int) -> str:
    """The text of what comes after the first `prompt` of these tokens."""
    # The prompt is decoded too: some tokenizers drop a space at the start of what they decode.
    before, whole = engine.tokenizer.batch_decode([ids[:prompt], ids], skip_special_tokens=True)
    return whole.removeprefix(before)


def first_tokens(engine: Engine, prompts: Sequence[str], words: Sequence[str]) -> list[set[int]]:
    """For each prompt, the tokens with which this tokenizer begins any of the words after it.

    Raises:
        TextError: a prompt after which no token begins, since it flows into the word that follows.
    """
    return [set(of) for of in word_tokens(engine, prompts, words).tolist()]


def word_tokens(engine: Engine, prompts: Sequence[str], words: Sequence[str]) -> np.ndarray:
    """The token with which this tokenizer begins each word after each prompt, int64 [p, w].

    Raises:
        TextError: see `first_tokens`.
    """
    found = np.empty((len(prompts), len(words)), dtype=np.int64)
    followed = [f"{prompt} {word}" for prompt in prompts for word in words]
    if not followed:
        return found
    encoded = engine.tokenizer(followed, return_offsets_mapping=True)
    spans: list[list[Span]] = encoded["offset_mapping"]
    for number, prompt in enumerate(prompts):
        for row in range(number * len(words), (number + 1) * len(words)):
            at = next(at for at, (_, end) in enumerate(spans[row]) if end > len(prompt))
            if spans[row][at][0] < len(prompt):
                raise TextError(
                    f"prompt {prompt!r}: its end shares a token with the word that comes next"
                )
            found[number, row - number * len(words)] = encoded["input_ids"][row][at]
    return found


def told_apart(tokens: np.ndarray) -> np.ndarray:
    """Which words (bool [w]) begin with a token that begins no other word, after any prompt.

    `tokens` [p, w] are those of `word_tokens`.
    """
    apart = np.ones(tokens.shape[1], dtype=bool)
    for of_prompt in tokens:
        _, which, times = np.unique(of_prompt, return_inverse=True, return_counts=True)
        apart &= times[which] == 1
    return apart
