"""What models make of a skill alone: with prompts of their own, and without the text.

Shapes: m items, k rows of a prompt, d width of an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from actors.catalog import ModelFacts
from actors.examples import Example
from actors.prompt_training import PromptTraining
from alignment.latents import Spread
from evaluation.cargos.soft_prompt import RELAY
from evaluation.skill import Item, options
from evaluation.trained_ways import BASE, NATIVE, Effort
from jobs import prompt_units
from jobs.prompt_units import Part, Questions, asked
from jobs.sections import SoftPrompts
from jobs.units import Asking, array_to_texts

PARTS: tuple[Part, Part] = ("held", "test")
Scores = dict[str, np.ndarray]  # [m]


@dataclass(frozen=True, eq=False)
class Alone:
    """A model without any other: what its own prompt cost, the statistics of its embeddings, and
    how well it does items of each part, natively, without the text, and with as much of it as is
    relayed."""

    effort: Effort
    embeddings: Spread
    scores: Mapping[Part, Scores]


def alone(
    section: SoftPrompts,
    seed: int,
    questions: Questions,
    models: Mapping[str, ModelFacts],
    asking: Asking,
) -> dict[str, Alone]:
    """Of every model.

    Raises:
        TextError: an item of which a tokenizer makes no token.
        ShardingError: a model is held so that no gradients go through it.
        ActorLost: a process died too often.
    """
    by = PromptTraining(
        count=section.count,
        learning_rate=section.prompt_learning_rate,
        epochs=section.prompt_epochs,
        seed=seed,
    )
    lessons, held = (
        [Example(item.given + item.right, len(item.given)) for item in of]
        for of in (questions.items.lessons, questions.items.held)
    )
    name = questions.skill.name
    units = {n: prompt_units.training(of, lessons, held, by) for n, of in models.items()}
    native = asked(asking, f"{name}: training prompts", units)
    reading = {n: prompt_units.common(of) for n, of in models.items()}
    common = asked(asking, f"{name}: reading embeddings", reading)
    scores = _scores(
        section.count, questions, models, asking, {n: native[n]["rows"] for n in models}
    )
    return {
        n: Alone(
            Effort(of["held_out"].tolist(), int(of["tokens"]), float(of["seconds"])),
            Spread.of(torch.from_numpy(common[n]["answer"])),
            scores[n],
        )
        for n, of in native.items()
    }


def _scores(
    count: int,
    questions: Questions,
    models: Mapping[str, ModelFacts],
    asking: Asking,
    rows: Mapping[str, np.ndarray],
) -> dict[str, dict[Part, Scores]]:
    """Without the text, with it after the prompt, and with no more of it than is relayed."""
    skill = questions.skill
    each = list(product(models, PARTS))
    cutting = {
        (name, part): prompt_units.beginnings(models[name], questions.texts(part), count)
        for name, part in each
    }
    cut = asked(asking, f"{skill.name}: cutting texts", cutting)
    judged: dict[tuple[str, Part, str], Sequence[Item]] = {}
    units = {}
    for name, part in each:
        items = questions.part(part)
        relayed = _with_texts(questions, items, array_to_texts(cut[name, part]["texts"]))
        for what, of in ((NATIVE, items), (RELAY, relayed)):
            examples = [Example(given + text, len(given)) for given, text in options(of)]
            unit = prompt_units.foreseen_prompted(models[name], examples, rows[name])
            units[name, part, what] = unit
            judged[name, part, what] = of
        units[name, part, BASE] = questions.judging(models[name], part, None)
        judged[name, part, BASE] = items
    found: dict[str, dict[Part, Scores]] = {name: {part: {} for part in PARTS} for name in models}
    answers = asked(asking, f"{skill.name}: judging prompts", units)
    for (name, part, what), answer in answers.items():
        of = judged[name, part, what]
        found[name][part][what] = skill.foreseen(of, answer["nats"], answer["tokens"])
    return found


def _with_texts(questions: Questions, items: Sequence[Item], texts: Sequence[str]) -> list[Item]:
    """Items that ask about other texts."""
    asked_so = [questions.skill.parts(item) for item in items]
    return [
        replace(item, given=before + text + after)
        for item, (before, _, after), text in zip(items, asked_so, texts, strict=True)
    ]
