"""Trains a LoRA adapter of a live model on texts, or on what follows in them.

Shapes: o and i what a layer returns and reads, r rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from actors.adapting import adapting
from actors.engine import Engine
from actors.examples import Example
from actors.learning import Course, Foreseeing, Taken, take
from actors.matrices import Rows, places
from alignment.updates import Update


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


TrainedAdapter: TypeAlias = Taken[Mapping[str, Update]]  # changes, by place


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
    put_on = partial(adapting, engine)
    return learned(engine, Foreseeing(engine, put_on, examples, held_out), training)


def learned(
    engine: Engine, course: Course[Mapping[str, Update]], training: AdapterTraining
) -> TrainedAdapter:
    """The adapter that a course makes of one that changes nothing.

    Raises:
        PartError: the model is not whole.
    """
    factors = begun(places(engine), training, engine.device)
    scale = training.alpha / training.rank

    def updates() -> Mapping[str, Update]:
        return {place: Update(scale * up, down) for place, (up, down) in factors.items()}

    def kept(of: Mapping[str, Update]) -> Mapping[str, Update]:
        return {
            place: Update(each.up.detach().clone(), each.down.detach().clone())
            for place, each in of.items()
        }

    parameters = [each for pair in factors.values() for each in pair]
    taken = take(engine, course, parameters, updates, kept, training)
    best = {place: each.on(torch.device("cpu")) for place, each in taken.best.items()}
    return replace(taken, best=best)


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
