"""An adapter taken over from another model by what it changes there, without data of its task.

Wherever a token ends in both models, both foresee what comes next. What the adapter adds to the
source's log-chances is added to those of the target as it is; an adapter of the target learns to
say that. Where the adapter teaches to judge, what the adapted source says is learned outright: its
change also makes up for what the source leans to, and the target leans to something else. On texts
that the adapted source has written it may learn to foresee them as well, which teaches it what
comes between two such places (sequence-level distillation, arXiv 1606.07947).

Shapes: n rows of a text, v tokens that both vocabularies have, k of them that are kept, b texts of
a pass, t tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from actors.adapted import continued
from actors.adapter_training import AdapterTraining, TrainedAdapter, learned
from actors.adapting import adapting
from actors.encoding import encode, of_like_length
from actors.engine import Engine
from actors.examples import Example, Pass, costs, passes
from alignment.updates import Update
from cluster.pace import part

SAMPLED = 48  # texts that tell which tokens are likely
TOGETHER = 8  # texts of a pass
What = TypeVar("What")


@dataclass(frozen=True, eq=False)
class Changes:
    """Of one text: after how many characters, int64 [n], and what is added there to log-chances,
    float16 [n, v], of some tokens among themselves; `outright` it is what they come to."""

    ends: np.ndarray
    added: np.ndarray
    outright: bool = False


@torch.inference_mode()
def own_texts(
    engine: Engine,
    updates: Mapping[str, Update],
    openings: Sequence[str],
    max_new_tokens: int,
    seed: int = 0,
    *,
    begun: bool = False,
    least: float = 0.0,
) -> list[Example]:
    """What the model with the adapter writes after each opening, which is not to be foreseen; drawn
    from all tokens that are at least so likely beside the likeliest. Of a text that is learned that
    is every token: what is left out of the unlikely ones would be learned to be unlikely.

    Unless openings are `begun` on purpose, a model that knows how texts begin needs none: one whose
    tokenizer puts a token of its own in front of each.

    Raises:
        TextError: an opening of which the tokenizer makes no token.
    """
    asked = openings
    if not begun and engine.tokenizer("")["input_ids"]:
        asked = [""] * len(openings)
    with torch.random.fork_rng(), adapting(engine, updates):
        torch.manual_seed(seed)
        after = continued(engine, asked, max_new_tokens, drawn=True, least=least)
    written = (
        Example(prompt + text, len(prompt)) for prompt, text in zip(asked, after, strict=True)
    )
    return [
        each if each.text.strip() else Example(opening, len(opening))  # nothing is no text
        for each, opening in zip(written, openings, strict=True)
    ]


@torch.inference_mode()
def changes(
    engine: Engine,
    updates: Mapping[str, Update],
    texts: Sequence[Example],
    tokens: np.ndarray,
    most: int | None = None,
    *,
    outright: bool = False,
) -> tuple[np.ndarray, list[Changes]]:
    """What an adapter changes in the model that it is for, of some tokens among themselves, in the
    part of each text that is to be foreseen; or `outright` what is said with it there.

    These are the `most` of the given ones [v] that are likeliest to come next in the first texts,
    with and without the adapter, or all of them: their places [k], int64, in order.

    Raises:
        TextError: a text of which the tokenizer makes no token.
    """
    some = len(tokens) if most is None else most
    every = some >= len(tokens)
    with part(0, 0.4):
        without = [] if outright and every else texts[:SAMPLED] if outright else texts
        plain = {read.number: read for read in _read(engine, without)}
    with part(0.4, 0.8), adapting(engine, updates):
        adapted = {read.number: read for read in _read(engine, texts)}
    with part(0.8, 1):
        kept = np.arange(len(tokens))
        if not every:
            sampled = [of[n] for of in (plain, adapted) for n in range(min(SAMPLED, len(texts)))]
            kept = _likeliest(engine, sampled, tokens, some)
        found = []
        for number in range(len(texts)):
            read = adapted[number]
            added = _log_chances(engine, read.states, tokens[kept])
            if not outright:
                added -= _log_chances(engine, plain[number].states, tokens[kept])
            found.append(Changes(read.ends, added.half().cpu().numpy(), outright))
    return kept, found


def refit_adapter(
    engine: Engine,
    texts: Sequence[Example],
    taught: Sequence[Changes],
    held_out: int,
    tokens: np.ndarray,
    training: AdapterTraining,
    most: int | None = None,
    foreseen: float = 0.0,
) -> TrainedAdapter:
    """An adapter of the target that changes what it says as the source's does.

    `taught` are the source's changes to the texts, of which the last `held_out` are not learned
    from; `tokens` [v] are the target's for the same v. The loss is KL(wanted || said) in nats a
    row, over these tokens, and `foreseen` times the nats a token of what is to be foreseen of the
    texts. Of those to learn from the first ones are read, as many as hold `most` tokens in all
    epochs together.

    Raises:
        TextError: a text of which the tokenizer makes no token.
        PartError: the model is not whole.
    """
    count = len(texts) - held_out
    if most is not None:
        sizes = [encode(engine, [each.text]).lengths[0] for each in texts[:count]]
        room = int(np.searchsorted(np.cumsum(sizes), most / training.epochs, side="right"))
        count = max(1, room)
    some, of_these = beginning(texts, count, held_out), beginning(taught, count, held_out)
    with part(0, 0.1):
        course = Relearning(engine, some, of_these, held_out, tokens, foreseen)
    with part(0.1, 1):
        return learned(engine, course, training)


def beginning(of: Sequence[What], count: int, held_out: int) -> list[What]:
    """The first ones, so many of them as are not held out, and the last ones, which are."""
    rest = len(of) - held_out
    return [*of[: min(count, rest)], *of[rest:]]


class _Read(NamedTuple):
    """One of several texts: after how many characters a token ends, and which, both [n], and what
    the head reads there, [n, d]."""

    number: int
    ends: np.ndarray
    at: np.ndarray
    states: Tensor


def _read(engine: Engine, texts: Sequence[Example]) -> Iterator[_Read]:
    for numbers in of_like_length([each.text for each in texts], TOGETHER * engine.at_once):
        encoded = encode(engine, [texts[number].text for number in numbers])
        states = engine.states(encoded.ids)
        for row, (number, spans) in enumerate(zip(numbers, encoded.spans, strict=True)):
            first = max(1, texts[number].start)
            # The last token that ends there, where several do.
            found = {
                end: at for at, (start, end) in enumerate(spans) if end > start and end >= first
            }
            ends, at = (np.array([*of], dtype=np.int64) for of in (found, found.values()))
            yield _Read(number, ends, at, states[row, torch.from_numpy(at)])


def _likeliest(engine: Engine, reads: Sequence[_Read], tokens: np.ndarray, most: int) -> np.ndarray:
    """Which of these tokens [v] are likeliest after all that was read, int64 [most], in order."""
    chances = np.zeros(len(tokens))
    for read in reads:
        chances += _log_chances(engine, read.states, tokens).exp().sum(0).double().cpu().numpy()
    return np.sort(np.argsort(-chances, kind="stable")[:most])


def _log_chances(engine: Engine, states: Tensor, tokens: np.ndarray) -> Tensor:
    """Of the tokens [v], among themselves, after these states [n, d]: [n, v]."""
    return engine.logits(states, torch.from_numpy(tokens).to(states.device)).log_softmax(-1)


class Relearning:
    """Texts, and what is to be said wherever both models have a token's end."""

    def __init__(
        self,
        engine: Engine,
        texts: Sequence[Example],
        taught: Sequence[Changes],
        held_out: int,
        tokens: np.ndarray,
        foreseen: float,
    ) -> None:
        self._engine, self._texts, self._foreseen = engine, texts, foreseen
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
            _, theirs, mine = np.intersect1d(change.ends, read.ends, return_indices=True)
            wanted = torch.from_numpy(change.added[theirs]).to(read.states)
            if not change.outright:
                states = read.states[torch.from_numpy(mine)]
                wanted = wanted + _log_chances(self._engine, states, tokens)
            found[read.number] = read.at[mine], wanted.log_softmax(-1).half()
        return [found[number] for number in range(len(self._texts))]

    def _kl(self, numbers: Sequence[int], some: Pass, states: Tensor) -> Tensor:
        """From what is wanted to what is said, summed over all rows of a pass."""
        wanted = [self._wanted[numbers[at]] for at in some.numbers]
        row = np.repeat(np.arange(len(wanted)), [len(at) for at, _ in wanted])
        column = np.concatenate([at for at, _ in wanted])
        at = states[torch.from_numpy(row), torch.from_numpy(column)]
        said = self._engine.logits(at, self._tokens).log_softmax(-1)
        there = torch.cat([chances for _, chances in wanted]).float()
        return (there.exp() * (there - said)).sum()

    def _passes(self, numbers: Sequence[int]) -> list[Pass]:
        return list(passes(self._engine, [self._texts[number] for number in numbers]))

    def _rows(self, numbers: Sequence[int]) -> int:
        return max(1, sum(len(self._wanted[number][0]) for number in numbers))

    def step(self, numbers: Sequence[int], updates: Mapping[str, Update]) -> int:
        batch, count = self._passes(numbers), self._rows(numbers)
        judged = max(1, sum(int(each.judged.sum()) for each in batch))
        with adapting(self._engine, updates):
            for each in batch:
                states = self._engine.states(each.ids)
                loss = self._kl(numbers, each, states) / count
                if self._foreseen:
                    cost = costs(self._engine, each, states).sum() / judged
                    loss = loss + self._foreseen * cost
                # What leads from the factors to the updates is gone over once for each.
                loss.backward(retain_graph=True)
        return sum(each.tokens for each in batch)

    @torch.no_grad()
    def look(self, updates: Mapping[str, Update]) -> float:
        numbers = range(self.count, len(self._texts))
        with adapting(self._engine, updates):
            found = [
                float(self._kl(numbers, each, self._engine.states(each.ids)))
                for each in self._passes(numbers)
            ]
        return self._engine.held.agreed(sum(found) / self._rows(numbers))
