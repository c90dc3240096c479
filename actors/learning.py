"""A few numbers that are learned for a frozen model, over epochs: adapters, and soft prompts."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from actors.engine import Engine
from actors.examples import Example, foreseen, nats, passes
from cluster.pace import paced, part

WARM = 0.1  # of the steps, until they are as large as they get
Learned = TypeVar("Learned")
PutOn = Callable[[Learned], AbstractContextManager[None]]


class Schedule(Protocol):
    """By AdamW, whose learning rate rises to `learning_rate`, and then falls to nothing after
    `epochs`. A step takes `batch` lessons."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def batch(self) -> int: ...

    @property
    def epochs(self) -> int: ...

    @property
    def seed(self) -> int: ...


class Course(Protocol[Learned]):
    """What is to be learned, in `count` lessons."""

    count: int

    def step(self, numbers: Sequence[int], put_on: Learned, /) -> int:
        """Leave gradients of the loss of some lessons; how many tokens were read."""
        ...

    def look(self, put_on: Learned, /) -> float:
        """The loss of what is held out."""
        ...


@dataclass(frozen=True, eq=False)
class Taken(Generic[Learned]):
    """What was learned, after the epoch whose held-out loss is least. `held_out` is that loss
    before any step and after each epoch; `tokens` is how many were read to learn."""

    best: Learned
    held_out: tuple[float, ...]
    tokens: int
    seconds: float


def share_of_rate(step: int, last: int) -> float:
    """How much of its full learning rate a step takes, of so many: more and more, and then less and
    less down to nothing."""
    return min((step + 1) / max(1.0, WARM * last), 1 - step / last)


def take(
    engine: Engine,
    course: Course[Learned],
    parameters: Sequence[Tensor],
    put_on: Callable[[], Learned],
    kept: Callable[[Learned], Learned],
    schedule: Schedule,
) -> Taken[Learned]:
    """Follow a course: `put_on` makes of the parameters what the model has on, and `kept` is a copy
    of that which no further step changes."""
    started = time.monotonic()
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    in_epoch = math.ceil(course.count / schedule.batch)
    last = in_epoch * schedule.epochs
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, last))
    draw, tokens = np.random.default_rng(schedule.seed), 0
    with engine.held.with_gradients():
        best = kept(put_on())
        with part(0, 0):
            seen = [course.look(best)]
        for _ in paced(range(schedule.epochs)):
            for some in paced(np.array_split(draw.permutation(course.count), in_epoch)):
                optimizer.zero_grad()
                with torch.enable_grad():
                    tokens += course.step(some.tolist(), put_on())
                optimizer.step()
                rate.step()
            now = kept(put_on())
            seen.append(course.look(now))
            if seen[-1] == min(seen[1:]):
                best = now
    return Taken(best, tuple(seen), tokens, time.monotonic() - started)


class Foreseeing(Generic[Learned]):
    """Examples, to be foreseen; the loss is nats per token."""

    def __init__(
        self,
        engine: Engine,
        put_on: PutOn[Learned],
        examples: Sequence[Example],
        held_out: Sequence[Example],
    ) -> None:
        self._engine, self._put_on = engine, put_on
        self._examples, self._held_out = examples, held_out
        self.count = len(examples)

    def step(self, numbers: Sequence[int], put_on: Learned) -> int:
        batch = list(passes(self._engine, [self._examples[number] for number in numbers]))
        count = sum(int(each.judged.sum()) for each in batch)
        with self._put_on(put_on):
            for each in batch:
                # What leads from the parameters to what is put on is gone over once for each.
                (nats(self._engine, each).sum() / count).backward(retain_graph=True)
        return sum(each.tokens for each in batch)

    @torch.no_grad()
    def look(self, put_on: Learned) -> float:
        with self._put_on(put_on):
            found, tokens = foreseen(self._engine, self._held_out)
        return self._engine.held.agreed(float(found.sum() / tokens.sum()))
