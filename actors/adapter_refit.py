"""An adapter taken over from another model by what it changes there, without data of its task.

At the ends of words both models foresee the next word. What the adapter adds to the source's
log-chances is added to those of the target as it is; an adapter of the target learns to say that.

Shapes: n rows of a text, v tokens that both vocabularies have, k of them that are kept, b texts of
a pass, t tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.adapted import continued
from actors.adapter_training import AdapterTraining, TrainedAdapter, take
from actors.adapting import adapting
from actors.anchors import AnchorBatch, rows
from actors.encoding import encode
from actors.engine import Engine
from actors.examples import Example, passes
from alignment.updates import Update

NUCLEUS = 0.95
SAMPLED = 48  # texts that tell which tokens are likely
TOGETHER = 8  # texts of a pass


@dataclass(frozen=True, eq=False)
class Changes:
    """Of one text: at which words, int64 [n], and what is added to log-chances, float16 [n, v], of
    some tokens among themselves."""

    words: np.ndarray
    added: np.ndarray


@torch.inference_mode()
def likely(
    engine: Engine,
    updates: Mapping[str, Update],
    texts: Sequence[str],
    tokens: np.ndarray,
    most: int,
) -> np.ndarray:
    """Which of these tokens [v] are likeliest at the ends of words in the first texts, with and
    without the adapter: their places among them, at most so many, int64 [k], in order.

    Raises:
        TextError: a text of which the tokenizer makes no token.
    """
    chances = np.zeros(len(tokens))
    for each in ({}, updates):
        with adapting(engine, each):
            for read in _read(engine, texts[:SAMPLED]):
                said = _log_chances(engine, read.states, tokens).exp()
                chances += said.sum(0).double().cpu().numpy()
    return np.sort(np.argsort(-chances, kind="stable")[:most])


@torch.inference_mode()
def own_texts(
    engine: Engine,
    updates: Mapping[str, Update],
    openings: Sequence[str],
    max_new_tokens: int,
    seed: int = 0,
) -> list[str]:
    """What the model with the adapter writes, by chance, each opening included.

    Raises:
        TextError: an opening of which the tokenizer makes no token.
    """
    with torch.random.fork_rng(), adapting(engine, updates):
        torch.manual_seed(seed)
        after = continued(engine, openings, max_new_tokens, NUCLEUS)
    return [(opening + text).strip() for opening, text in zip(openings, after, strict=True)]


@torch.inference_mode()
def changes(
    engine: Engine, updates: Mapping[str, Update], texts: Sequence[str], tokens: np.ndarray
) -> list[Changes]:
    """What an adapter changes in the model that it is for, of these tokens [v] among themselves.

    Raises:
        TextError: a text of which the tokenizer makes no token.
    """
    plain = {
        read.number: _log_chances(engine, read.states, tokens) for read in _read(engine, texts)
    }
    found = {}
    with adapting(engine, updates):
        for read in _read(engine, texts):
            added = _log_chances(engine, read.states, tokens) - plain.pop(read.number)
            found[read.number] = Changes(read.words, added.half().cpu().numpy())
    return [found[number] for number in range(len(texts))]


def refit_adapter(
    engine: Engine,
    texts: Sequence[str],
    taught: Sequence[Changes],
    held_out: int,
    tokens: np.ndarray,
    training: AdapterTraining,
    most: int | None = None,
) -> TrainedAdapter:
    """An adapter of the target that changes what it says as the source's does.

    `taught` are the source's changes to the texts, of which the last `held_out` are not learned
    from; `tokens` [v] are the target's for the same v. The loss is KL(wanted || said) in nats a
    word, over these tokens. Of the texts to learn from the first ones are read, as many as hold
    `most` tokens in all epochs together.

    Raises:
        TextError: a text of which the tokenizer makes no token.
        PartError: the model is not whole.
    """
    kept = range(len(texts))
    if most is not None:
        learned, held = kept[: len(texts) - held_out], kept[len(texts) - held_out :]
        sizes = [encode(engine, [texts[number]]).lengths[0] for number in learned]
        room = int(np.searchsorted(np.cumsum(sizes), most / training.epochs, side="right"))
        kept = [*learned[: max(1, room)], *held]
    some, of_these = [texts[number] for number in kept], [taught[number] for number in kept]
    return take(engine, _Course(engine, some, of_these, held_out, tokens), training)


class _Read(NamedTuple):
    """One of several texts: the words and the tokens at whose ends there is a row, both [n], and
    what the head reads there, [n, d]."""

    number: int
    words: np.ndarray
    at: np.ndarray
    states: Tensor


def _read(engine: Engine, texts: Sequence[str]) -> Iterator[_Read]:
    by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for start in range(0, len(texts), TOGETHER):
        numbers = by_length[start : start + TOGETHER]
        encoded = encode(engine, [texts[number] for number in numbers])
        states = engine.states(encoded.ids)
        for row, (number, spans) in enumerate(zip(numbers, encoded.spans, strict=True)):
            words, _, at = rows(AnchorBatch(shard=0, index=0, texts=(texts[number],)), [spans])
            yield _Read(number, words, at, states[row, torch.from_numpy(at)])


def _log_chances(engine: Engine, states: Tensor, tokens: np.ndarray) -> Tensor:
    """Of the tokens [v], among themselves, after these states [n, d]: [n, v]."""
    return engine.logits(states, torch.from_numpy(tokens).to(states.device)).log_softmax(-1)


class _Course:
    """Texts, and what is to be said at the words that both models have."""

    def __init__(
        self,
        engine: Engine,
        texts: Sequence[str],
        taught: Sequence[Changes],
        held_out: int,
        tokens: np.ndarray,
    ) -> None:
        self._engine, self._texts = engine, texts
        self._tokens = torch.from_numpy(tokens).to(engine.device)
        self._wanted = self._prepared(taught, tokens)
        self.count = len(texts) - held_out

    @torch.no_grad()
    def _prepared(
        self, taught: Sequence[Changes], tokens: np.ndarray
    ) -> list[tuple[np.ndarray, Tensor]]:
        """Of each text the tokens [n] after which something is wanted, and log-chances [n, v]."""
        found = {}
        for read in _read(self._engine, self._texts):
            change = taught[read.number]
            _, theirs, mine = np.intersect1d(change.words, read.words, return_indices=True)
            plain = _log_chances(self._engine, read.states[torch.from_numpy(mine)], tokens)
            added = torch.from_numpy(change.added[theirs]).to(plain)
            found[read.number] = read.at[mine], (plain + added).log_softmax(-1).half()
        return [found[number] for number in range(len(self._texts))]

    def _losses(self, numbers: Sequence[int]) -> Iterator[tuple[Tensor, int, int]]:
        """Of each pass: the sum over its words, how many words and how many tokens there are."""
        some = [Example(self._texts[number]) for number in numbers]
        for each in passes(self._engine, some):
            wanted = [self._wanted[numbers[at]] for at in each.numbers]
            row = np.repeat(np.arange(len(wanted)), [len(at) for at, _ in wanted])
            column = np.concatenate([at for at, _ in wanted])
            states = self._engine.states(each.ids)[torch.from_numpy(row), torch.from_numpy(column)]
            said = self._engine.logits(states, self._tokens).log_softmax(-1)
            there = torch.cat([chances for _, chances in wanted]).float()
            loss = (there.exp() * (there - said)).sum()
            yield loss, len(row), each.ids.numel()

    def step(self, numbers: Sequence[int], updates: Mapping[str, Update]) -> int:
        words = sum(len(self._wanted[number][0]) for number in numbers)
        read = 0
        with adapting(self._engine, updates):
            for loss, _, tokens in self._losses(numbers):
                (loss / words).backward(retain_graph=True)
                read += tokens
        return read

    @torch.no_grad()
    def look(self, updates: Mapping[str, Update]) -> float:
        total = count = 0.0
        with adapting(self._engine, updates):
            for loss, words, _ in self._losses(range(self.count, len(self._texts))):
                total, count = total + float(loss), count + words
        return self._engine.held.agreed(total / count)
