"""Trains a soft prompt of a live model on what follows in texts (prompt tuning, arXiv 2104.08691).

Shapes: k rows of the prompt, d width of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from actors.engine import Engine
from actors.examples import Example
from actors.learning import Foreseeing, Taken, take
from actors.prompting import prompting

LIKELY = 5000  # a vocabulary begins with what is common; a prompt begins as some of that


@dataclass(frozen=True)
class PromptTraining:
    """How a prompt of `count` rows is trained.

    By AdamW, whose learning rate rises to `learning_rate` times the root mean square of the model's
    embeddings, and then falls to nothing after `epochs`. A step takes `batch` texts.
    """

    count: int = 16
    learning_rate: float = 0.1
    weight_decay: float = 0.0
    batch: int = 16
    epochs: int = 2
    seed: int = 0


def train_prompt(
    engine: Engine,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    training: PromptTraining,
) -> Taken[Tensor]:
    """A prompt [k, d] that makes a model foresee examples; the model is left as it was.

    The loss is nats per token of what is to be foreseen.

    Raises:
        TextError: an example has no token.
    """
    rows = begun_prompt(engine, training.count, training.seed)
    size = float(rows.square().mean().sqrt())
    rows.requires_grad_()
    schedule = replace(training, learning_rate=training.learning_rate * size)
    course = Foreseeing(engine, partial(prompting, engine), examples, held_out)
    return take(
        engine, course, [rows], lambda: rows, lambda of: of.detach().cpu().clone(), schedule
    )


@torch.no_grad()
def begun_prompt(engine: Engine, count: int, seed: int) -> Tensor:
    """The embeddings of some common tokens [k, d], float32."""
    drawn = torch.Generator().manual_seed(seed)
    most = min(LIKELY, len(engine.tokenizer))
    ids = torch.randperm(most, generator=drawn)[:count].to(engine.device)
    return engine.embeddings(ids[None])[0].float().clone()
