"""Trains a LoRA adapter of a live model on texts, or on what follows in them.

Shapes: o and i what a layer returns and reads, r rank.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from actors.adapting import adapting
from actors.engine import Engine
from actors.examples import Example, foreseen, nats, passes
from actors.matrices import Rows, places
from alignment.updates import Update

WARM = 0.1  # of the steps, until they are as large as they get


@dataclass(frozen=True)
class AdapterTraining:
    """How an adapter is trained (arXiv 2106.09685).

    Of rank `rank` at every place, its change times `alpha` / `rank`; by AdamW, whose learning rate
    rises to `learning_rate`, and then falls to nothing after `epochs`. A step takes `batch` texts.
    """

    rank: int = 8
    alpha: float = 16.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 16
    epochs: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """What was learned, by place, after the epoch whose held-out loss is least. `held_out` is that
    loss before any step and after each epoch; `tokens` is how many were read to learn."""

    updates: Mapping[str, Update]
    held_out: tuple[float, ...]
    tokens: int
    seconds: float


class Course(Protocol):
    """What an adapter is to learn, in `count` lessons."""

    count: int

    def step(self, numbers: Sequence[int], updates: Mapping[str, Update]) -> int:
        """Leave gradients of the loss of some lessons; how many tokens were read."""
        ...

    def look(self, updates: Mapping[str, Update]) -> float:
        """The loss of what is held out."""
        ...


def train_adapter(
    engine: Engine,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    training: AdapterTraining,
) -> TrainedAdapter:
    """An adapter of every place of a model that is whole; the model is left as it was.

    The loss is nats per token of what is to be foreseen.

    Raises:
        TextError: an example has no token.
        PartError: the model is not whole.
    """
    return take(engine, _Foreseeing(engine, examples, held_out), training)


def take(engine: Engine, course: Course, training: AdapterTraining) -> TrainedAdapter:
    """The adapter that a course makes of one that changes nothing.

    Raises:
        PartError: the model is not whole.
    """
    started = time.monotonic()
    factors = begun(places(engine), training, engine.device)
    parameters = [each for pair in factors.values() for each in pair]
    optimizer = torch.optim.AdamW(
        parameters, lr=training.learning_rate, weight_decay=training.weight_decay
    )
    in_epoch = math.ceil(course.count / training.batch)
    last = in_epoch * training.epochs
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1.0, WARM * last), 1 - step / last)
    )
    draw, tokens = np.random.default_rng(training.seed), 0

    def updates() -> dict[str, Update]:
        scale = training.alpha / training.rank
        return {place: Update(scale * up, down) for place, (up, down) in factors.items()}

    best: dict[str, Update] = {}
    with engine.held.with_gradients():
        seen = [course.look(updates())]
        for _ in range(training.epochs):
            for some in np.array_split(draw.permutation(course.count), in_epoch):
                optimizer.zero_grad()
                with torch.enable_grad():
                    tokens += course.step(some.tolist(), updates())
                optimizer.step()
                rate.step()
            seen.append(course.look(updates()))
            if seen[-1] == min(seen[1:]):
                best = {
                    place: Update(each.up.detach().cpu().clone(), each.down.detach().cpu().clone())
                    for place, each in updates().items()
                }
    return TrainedAdapter(best, tuple(seen), tokens, time.monotonic() - started)


def begun(
    where: Mapping[str, Rows], training: AdapterTraining, device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter that changes nothing yet: up [o, r] is zero, down [r, i] is drawn."""
    drawn = torch.Generator().manual_seed(training.seed)
    found = {}
    for place, rows in where.items():
        bound = rows.inputs**-0.5
        down = torch.empty(training.rank, rows.inputs).uniform_(-bound, bound, generator=drawn)
        up = torch.zeros(len(rows.rows), training.rank)
        found[place] = (up.to(device).requires_grad_(), down.to(device).requires_grad_())
    return found


class _Foreseeing:
    """Examples, to be foreseen."""

    def __init__(
        self, engine: Engine, examples: Sequence[Example], held_out: Sequence[Example]
    ) -> None:
        self._engine, self._examples, self._held_out = engine, examples, held_out
        self.count = len(examples)

    def step(self, numbers: Sequence[int], updates: Mapping[str, Update]) -> int:
        batch = list(passes(self._engine, [self._examples[number] for number in numbers]))
        count = sum(int(each.judged.sum()) for each in batch)
        with adapting(self._engine, updates):
            for each in batch:
                # What leads from the factors to the updates is gone over once for each.
                (nats(self._engine, each).sum() / count).backward(retain_graph=True)
        return sum(each.tokens for each in batch)

    @torch.no_grad()
    def look(self, updates: Mapping[str, Update]) -> float:
        with adapting(self._engine, updates):
            found, tokens = foreseen(self._engine, self._held_out)
        return self._engine.held.agreed(float(found.sum() / tokens.sum()))
