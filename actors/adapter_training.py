"""Trains a LoRA adapter of a live model on texts, or on what follows in them.

Shapes: o and i what a layer returns and reads, r rank.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """What was learned, by place. `held_out` are nats per token of held-out examples, before any
    step and after each epoch; `tokens` is how many were read to learn."""

    updates: Mapping[str, Update]
    held_out: tuple[float, ...]
    tokens: int
    seconds: float


def train_adapter(
    engine: Engine,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    training: AdapterTraining,
) -> TrainedAdapter:
    """An adapter of every place of a model that is whole; the model is left as it was.

    Raises:
        TextError: an example has no token.
        ShardingError: no gradients go through a model that is held like this.
    """
    started = time.monotonic()
    factors = begun(places(engine), training, engine.device)
    parameters = [each for pair in factors.values() for each in pair]
    optimizer = torch.optim.AdamW(
        parameters, lr=training.learning_rate, weight_decay=training.weight_decay
    )
    in_epoch = math.ceil(len(examples) / training.batch)
    last = in_epoch * training.epochs
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1.0, WARM * last), 1 - step / last)
    )
    draw, tokens = np.random.default_rng(training.seed), 0
    scale = training.alpha / training.rank
    with engine.held.with_gradients():
        seen = [_look(engine, held_out, factors, scale)]
        for _ in range(training.epochs):
            for some in np.array_split(draw.permutation(len(examples)), in_epoch):
                optimizer.zero_grad()
                tokens += _step(engine, [examples[number] for number in some], factors, scale)
                optimizer.step()
                rate.step()
            seen.append(_look(engine, held_out, factors, scale))
    with torch.no_grad():
        updates = {
            place: Update((scale * up).cpu(), down.detach().cpu())
            for place, (up, down) in factors.items()
        }
    return TrainedAdapter(updates, tuple(seen), tokens, time.monotonic() - started)


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


def _step(
    engine: Engine,
    examples: Sequence[Example],
    factors: Mapping[str, tuple[Tensor, Tensor]],
    scale: float,
) -> int:
    """Leave the gradients of one batch; how many tokens were read."""
    batch = list(passes(engine, examples))
    count = sum(int(each.judged.sum()) for each in batch)
    for each in batch:
        with torch.enable_grad(), adapting(engine, _updates(factors, scale)):
            (nats(engine, each).sum() / count).backward()
    return sum(each.ids.numel() for each in batch)


@torch.no_grad()
def _look(
    engine: Engine,
    examples: Sequence[Example],
    factors: Mapping[str, tuple[Tensor, Tensor]],
    scale: float,
) -> float:
    """Nats per token."""
    with adapting(engine, _updates(factors, scale)):
        found, tokens = foreseen(engine, examples)
    return engine.held.agreed(float(found.sum() / tokens.sum()))


def _updates(factors: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> dict[str, Update]:
    return {place: Update(scale * up, down) for place, (up, down) in factors.items()}
