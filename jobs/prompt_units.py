"""What models are asked about soft prompts and latents, and how answers are kept.

Shapes: b texts, t tokens, i width of a site, k rows of a prompt or of latents, d width of an
embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

import numpy as np
from torch import Tensor

from actors.catalog import ModelFacts
from actors.examples import Example
from actors.learning import Taken
from actors.prompt_training import LIKELY, PromptTraining
from evaluation.skill import Item, Items, Skill
from jobs.latent_training import Lessons
from jobs.units import Arrays, Asking, Unit, digest, texts_to_array

Part = Literal["lessons", "held", "test"]
What = TypeVar("What")


@dataclass(frozen=True, eq=False)
class Questions:
    """The items of a skill, as a text in a form that latents may stand for."""

    skill: Skill
    items: Items

    @property
    def before(self) -> str:
        """What comes before latents: without a space at its end, which would be a token that no
        text has."""
        return self.skill.form.partition("{}")[0].rstrip()

    def part(self, part: Part) -> tuple[Item, ...]:
        """The items of a part."""
        return {
            "lessons": self.items.lessons,
            "held": self.items.held,
            "test": self.items.test,
        }[part]

    def texts(self, part: Part) -> list[str]:
        """What stands in the form."""
        return [self.skill.parts(item)[1] for item in self.part(part)]

    def lessons(self, part: Part, states: Sequence[np.ndarray]) -> Lessons:
        """What is to be foreseen after latents, of what an encoder holds of each text [t, i]."""
        examples = [self._after(item, item.right) for item in self.part(part)]
        return Lessons(self.before, states, examples)

    def judging(self, model: ModelFacts, part: Part, rows: np.ndarray | None) -> Unit:
        """Every option after latents [m, k, d] in place of the texts, or without any."""
        examples, numbers = [], []
        for number, item in enumerate(self.part(part)):
            for text in (item.right, *item.others):
                examples.append(self._after(item, text))
                numbers.append(number)
        return foreseen_after(model, self.before, examples, None if rows is None else rows[numbers])

    def _after(self, item: Item, text: str) -> Example:
        after = self.skill.parts(item)[2]
        return Example(after + text, len(after))


def asked(asking: Asking, title: str, units: Mapping[What, Unit]) -> dict[What, Arrays]:
    """The answers to several units, all models at once."""
    return dict(zip(units, asking.by_waves(title, [*units.values()]), strict=True))


def training(
    model: ModelFacts, lessons: Sequence[Example], held: Sequence[Example], by: PromptTraining
) -> Unit:
    """A prompt [k, d] that examples teach: `rows`, and what it cost."""
    asked = [said(lessons), said(held), asdict(by)]
    return Unit(model, "train_prompt", (lessons, held, by), asked, _kept)


def common(model: ModelFacts) -> Unit:
    """The embeddings of the tokens with which a vocabulary begins."""
    ids = np.arange(min(LIKELY, model.vocabulary))
    return Unit(model, "embeddings", (ids,), [len(ids)])


def beginnings(model: ModelFacts, texts: Sequence[str], tokens: int) -> Unit:
    """As much of each text as its first tokens hold."""
    return Unit(model, "beginnings", (texts, tokens), [[*texts], tokens], _texts)


def stream(model: ModelFacts, texts: Sequence[str], site: str) -> Unit:
    """What a site holds of each text, one after the other, and how many rows each has."""
    return Unit(model, "stream", (texts, site), [[*texts], site], _rows)


def foreseen_prompted(model: ModelFacts, examples: Sequence[Example], rows: np.ndarray) -> Unit:
    """What examples cost after a prompt [k, d]."""
    asked = [said(examples), digest(rows)]
    return Unit(model, "foreseen_prompted", (examples, rows), asked, _foreseen)


def foreseen_after(
    model: ModelFacts, before: str, examples: Sequence[Example], rows: np.ndarray | None
) -> Unit:
    """What examples cost after a text and latents [b, k, d], or after the text alone."""
    asked = [before, said(examples), None if rows is None else digest(rows)]
    return Unit(model, "foreseen_after", (before, examples, rows), asked, _foreseen)


def said(examples: Sequence[Example]) -> list[list[str | int]]:
    """Examples as JSON."""
    return [[each.text, each.start] for each in examples]


def _kept(of: Taken[Tensor]) -> Arrays:
    return {
        "rows": of.best.numpy(),
        "held_out": np.array(of.held_out),
        "tokens": np.array(of.tokens),
        "seconds": np.array(of.seconds),
    }


def _texts(answer: list[str]) -> Arrays:
    return {"texts": texts_to_array(answer)}


def _foreseen(answer: tuple[np.ndarray, np.ndarray]) -> Arrays:
    return {"nats": answer[0], "tokens": answer[1]}


def _rows(answer: list[np.ndarray]) -> Arrays:
    counts = np.array([len(each) for each in answer])
    return {"rows": np.concatenate(answer), "counts": counts}
