"""What a model makes of latents that stand in a text: what comes after costs, and which way that
falls.

Shapes: b texts, t tokens, k rows of a text's latents, d width of an embedding.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.encoding import TextError
from actors.engine import Engine
from actors.examples import Example, Pass, costs, read_once
from actors.prompting import prompting

TOGETHER = 64  # examples of a pass


@dataclass(frozen=True, eq=False)
class Slopes:
    """Nats of each text, float64 [b], over how many tokens, int64 [b]; how the nats of each grow
    with its rows, float32 [b, k, d]; and how many tokens and rows were `read` in all."""

    nats: np.ndarray
    tokens: np.ndarray
    slopes: np.ndarray
    read: int


def slopes(engine: Engine, before: str, examples: Sequence[Example], rows: np.ndarray) -> Slopes:
    """How what is to be foreseen after `before` and latents [b, k, d] depends on them.

    The model is left as it was.

    Raises:
        TextError: nothing comes before what is to be foreseen of an example.
        ShardingError: no gradients go through a model that is held like this.
    """
    read = torch.from_numpy(rows).to(engine.device).requires_grad_()
    found, tokens, taken = [], [], rows.shape[0] * rows.shape[1]
    with engine.held.with_gradients(), torch.enable_grad():
        for some, encoded, first in _passes(engine, before, examples):
            nats = _nats(engine, encoded, first, read[some])
            nats.sum().backward()
            found.append(nats.detach().double().cpu().numpy())
            tokens.append(encoded.judged.sum(1).cpu().numpy())
            taken += encoded.tokens
    assert read.grad is not None
    slope = read.grad.cpu().numpy()
    return Slopes(np.concatenate(found), np.concatenate(tokens), slope, taken)


@torch.inference_mode()
def foreseen_after(
    engine: Engine, before: str, examples: Sequence[Example], rows: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each example after `before` and latents [b, k, d], or without any, float64 [b]; and
    how many of its tokens are judged, int64 [b].

    Raises:
        TextError: nothing comes before what is to be foreseen of an example.
    """
    found, tokens = [], []
    for some, encoded, first in _passes(engine, before, examples):
        read = None if rows is None else torch.from_numpy(rows[some]).to(engine.device)
        found.append(_nats(engine, encoded, first, read).double().cpu().numpy())
        tokens.append(encoded.judged.sum(1).cpu().numpy())
    return np.concatenate(found), np.concatenate(tokens)


def _passes(
    engine: Engine, before: str, examples: Sequence[Example]
) -> Iterator[tuple[slice, Pass, int]]:
    """Which examples a pass is of, and what `_encode` makes of them."""
    together = TOGETHER * engine.at_once
    for start in range(0, len(examples), together):
        some = slice(start, start + together)
        yield some, *_encode(engine, before, examples[some])


def _encode(engine: Engine, before: str, examples: Sequence[Example]) -> tuple[Pass, int]:
    """What is read but for latents, and after how many tokens of each text those come."""
    first: list[int] = engine.tokenizer(before)["input_ids"]
    out = engine.tokenizer(
        [each.text for each in examples], add_special_tokens=False, return_offsets_mapping=True
    )
    texts: list[list[int]] = out["input_ids"]
    ids = torch.zeros(len(texts), len(first) + max(map(len, texts)), dtype=torch.long)
    judged = torch.zeros_like(ids, dtype=torch.bool)
    ids[:, : len(first)] = torch.tensor(first, dtype=torch.long)
    for row, (each, spans) in enumerate(zip(texts, out["offset_mapping"], strict=True)):
        start = next((at for at, (_, end) in enumerate(spans) if end > examples[row].start), 0)
        if not start:
            raise TextError(
                f"{examples[row].text!r}: after latents at least a token has to come that is not "
                "to be foreseen, and then one that is"
            )
        ids[row, len(first) : len(first) + len(each)] = torch.tensor(each)
        judged[row, len(first) + start : len(first) + len(each)] = True
    tokens = len(texts) * len(first) + sum(map(len, texts))
    read = Pass([*range(len(texts))], ids.to(engine.device), judged.to(engine.device), tokens)
    return read, len(first)


def _nats(engine: Engine, read: Pass, first: int, rows: Tensor | None) -> Tensor:
    """Of each text [b], with rows after the first tokens."""

    def states(of: list[int]) -> Tensor:
        with nullcontext() if rows is None else prompting(engine, rows[of], first):
            return engine.states(read.ids[of])

    return costs(engine, read, read_once(read, states, rows))
