"""What the benchmarks of adapters share: a run's models in this process, with its native adapters.

Shapes: m items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as bytes_of

from actors.adapted import foreseen_with, written_with
from actors.adapter_training import train_adapter
from actors.catalog import ModelFacts, ModelSpec
from actors.engine import Engine, load
from actors.examples import Example
from actors.weights import default_cache, facts, prepare
from alignment.updates import Update
from cluster.storage import Store, open_store
from evaluation.retention import measure_retention
from evaluation.skill import Item, Items, options
from evaluation.skills import SKILLS
from jobs import adapter_units
from jobs.adapter_units import Made
from jobs.config import RunFile, read_run_file
from jobs.names import ROOT
from jobs.sections import Adapters
from jobs.texts import Texts, gather

HELD = 40  # items by which something is chosen
RUN_FILE = "configs/adapters/demo.yaml"
Updates = Mapping[str, Update]
Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Model:
    """A live model, and what is known of it."""

    facts: ModelFacts
    engine: Engine


@dataclass(frozen=True, eq=False)
class Run:
    """A run file with adapters, its section on them, its texts, and where its answers are kept."""

    file: RunFile
    section: Adapters
    texts: Texts
    store: Store

    @classmethod
    def read(cls, skills: Sequence[str] = (), *, quick: bool = False) -> "Run":
        """That of the demo, of some skills or of all that it has.

        A quick one computes in half precision, and solves for nothing.
        """
        file = read_run_file(ROOT / RUN_FILE)
        section = file.lora
        assert section is not None, "it carries adapters"
        changes: dict[str, Any] = {"skills": skills} if skills else {}
        if quick:
            changes["solve"] = False
            halved = (each.model_copy(update={"dtype": "bfloat16"}) for each in file.models)
            file = file.model_copy(update={"models": tuple(halved)})
        section = Adapters.model_validate(dict(section) | changes)
        file = file.model_copy(update={"lora": section})
        return cls(file, section, gather(file), open_store(file.store_location))

    def directions(self) -> Iterator[tuple[str, Model, Model]]:
        """Each ordered pair of models; the name of the direction comes first."""
        yield from named_pairs([live(spec) for spec in self.file.models])

    def native(self, model: Model, skill: str) -> Made:
        """The adapter that a model's own lessons make; the sweep's, where it has made it."""
        items = self.texts.items[skill]
        by = adapter_units.how(self.section, self.file.seed)
        lessons = items.lessons[: self.section.lessons]
        unit = adapter_units.training(model.facts, lessons, items.held, by)
        if not self.store.present([unit.to]):
            answer = train_adapter(model.engine, *unit.args)
            self.store.put(unit.to, bytes_of(unit.keep(answer)))
        return adapter_units.made(unit, arrays_of(self.store.get(unit.to)))


def live(spec: ModelSpec) -> Model:
    """A model that is loaded."""
    at = prepare(spec, default_cache())
    return Model(facts(at, spec.name, spec.dtype), load(at, threads=2))


def named_pairs(models: Sequence[Model]) -> Iterator[tuple[str, Model, Model]]:
    """Each ordered pair, after its name."""
    for source, target in permutations(models, 2):
        yield f"{source.facts.name} -> {target.facts.name}", source, target


def scores(model: Model, name: str, items: Sequence[Item], on: Updates) -> NDArray[np.float64]:
    """How well a model with these on does items of a skill [m]; more is better."""
    skill = SKILLS[name]
    if skill.measure == "rule":
        asked = [each.given for each in items]
        return skill.written(items, written_with(model.engine, asked, on, skill.tokens))
    examples = [Example(given + text, len(given)) for given, text in options(items)]
    return skill.foreseen(items, *foreseen_with(model.engine, examples, on))


@dataclass(frozen=True, eq=False)
class Scored:
    """A skill, as a target does it alone and with its own adapter: each [m]."""

    target: Model
    skill: str
    items: Items
    base: NDArray[np.float64]
    native: NDArray[np.float64]

    @classmethod
    def of(cls, run: Run, target: Model, skill: str) -> "Scored":
        items = run.texts.items[skill]
        own = run.native(target, skill).updates
        return cls(
            target, skill, items, *(scores(target, skill, items.test, on) for on in ({}, own))
        )

    def held(self, on: Updates) -> float:
        """How well held items are done, in the skill's own measure; more is better."""
        return float(scores(self.target, self.skill, self.items.held[:HELD], on).mean())

    def test(self, on: Updates) -> dict[str, float] | None:
        """Of the native gain over test items, with its interval; None where nothing is native."""
        return self.share(self.done(on))

    def done(self, on: Updates) -> NDArray[np.float64]:
        """How well each test item is done with these on [m]."""
        return scores(self.target, self.skill, self.items.test, on)

    def share(self, carried: NDArray[np.float64]) -> dict[str, float] | None:
        """Of the native gain what these scores are, with the interval."""
        found = measure_retention(self.base, self.native, carried).retention
        return None if found is None else asdict(found)


def scaled(updates: Updates, factor: float) -> dict[str, Update]:
    """Each change times a number."""
    return {place: each.scaled(factor) for place, each in updates.items()}
