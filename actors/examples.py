"""Texts of which a part is to be foreseen: what a model is taught by, and what it is judged on.

Shapes: n examples, b of them in a pass, t tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.encoding import encode
from actors.engine import Engine
from cluster.pace import paced

TOKENS_A_PASS = 512  # bounds the memory of a pass that is gone back through
TOKENS_AHEAD = 2048  # of a pass that is not: fewer do not fill the processor
_CHARACTERS = 3  # there are hardly more tokens than one for so many


@dataclass(frozen=True)
class Example:
    """A text, and the character from which on it is to be foreseen."""

    text: str
    start: int = 0


@dataclass(frozen=True, eq=False)
class Pass:
    """Examples of like length: their numbers, token ids [b, t], and which of them are judged;
    `tokens` are all of theirs, without those that fill up."""

    numbers: list[int]
    ids: Tensor
    judged: Tensor
    tokens: int


def passes(
    engine: Engine, examples: Sequence[Example], tokens: int = TOKENS_A_PASS
) -> Iterator[Pass]:
    """All of them, at most so many tokens at a time; those that begin alike one after the other.

    Raises:
        TextError: an example has no token.
    """
    given = [each.text[: each.start] or each.text for each in examples]
    longest: dict[str, int] = defaultdict(int)
    for begun, each in zip(given, examples, strict=True):
        longest[begun] = max(longest[begun], len(each.text))
    together: list[list[int]] = []
    room = tokens * engine.at_once
    for number in sorted(range(len(examples)), key=lambda at: (longest[given[at]], given[at])):
        most = longest[given[number]] // _CHARACTERS
        if not together or (len(together[-1]) + 1) * most > room:
            together.append([])
        together[-1].append(number)
    for some in paced(together):
        yield _pass(engine, examples, some)


def _pass(engine: Engine, examples: Sequence[Example], numbers: list[int]) -> Pass:
    encoded = encode(engine, [examples[number].text for number in numbers])
    judged = torch.zeros(encoded.ids.shape, dtype=torch.bool)
    for row, (number, spans) in enumerate(zip(numbers, encoded.spans, strict=True)):
        for at, (_, end) in enumerate(spans):
            judged[row, at] = at > 0 and end > examples[number].start
    return Pass(numbers, encoded.ids, judged.to(engine.device), sum(encoded.lengths))


def nats(engine: Engine, some: Pass) -> Tensor:
    """What each example costs [b], all its judged tokens together."""
    return costs(engine, some, read_once(some, lambda of: engine.states(some.ids[of])))


def read_once(
    some: Pass, states: Callable[[list[int]], Tensor], rows: Tensor | None = None
) -> Tensor:
    """What the head reads before the last token of each example [b, t, d], of what it reads of
    those by number; each with rows of its own [b, k, d], where there are any.

    Options that are a token each come after the same text, which is read once for all of them.
    """
    places = torch.arange(some.ids.shape[1], device=some.ids.device)
    last = (some.judged * places).max(1, keepdim=True).values
    before = some.ids.scatter(1, last, -1).cpu().numpy()
    more = [b""] * len(before) if rows is None else [*rows.detach().cpu().numpy()]
    keys = [one.tobytes() + bytes(other) for one, other in zip(before, more, strict=True)]
    alike: dict[bytes, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        alike[key].append(number)
    found = states([first for first, *_ in alike.values()])
    if len(alike) == len(keys):
        return found
    row = {number: at for at, numbers in enumerate(alike.values()) for number in numbers}
    return found[[row[number] for number in range(len(keys))]]


def costs(engine: Engine, some: Pass, states: Tensor) -> Tensor:
    """The same, of what the head reads [b, t, d]."""
    judged = some.judged[:, 1:]
    own = engine.log_chances(states[:, :-1][judged], some.ids[:, 1:][judged])
    return -own.new_zeros(judged.shape).masked_scatter(judged, own).sum(1)


@torch.no_grad()
def foreseen(engine: Engine, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each example, and how many of its tokens are judged, both [n].

    Raises:
        TextError: an example has no token.
    """
    found, tokens = np.zeros(len(examples)), np.zeros(len(examples), dtype=np.int64)
    for some in passes(engine, examples, TOKENS_AHEAD):
        found[some.numbers] = nats(engine, some).cpu().numpy()
        tokens[some.numbers] = some.judged.sum(1).cpu().numpy()
    return found, tokens
