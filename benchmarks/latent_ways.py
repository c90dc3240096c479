"""What else might bring latents nearer to native prompt tuning: lessons, rate, size, where to read.

Between the models of the demo's run of latents, in this process. Every way is judged on the same
test items, beside the levels without the text and of native tuning that `benchmarks.latents` has
recorded; `held` says what held items would choose. Recorded after every way; what has been trained
is kept in the store.

    python -m benchmarks.latent_ways SOURCE TARGET [WAY ...]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from actors.examples import Example
from actors.latent_reading import Slopes, foreseen_after, slopes
from actors.prompt_training import LIKELY
from actors.reading import embeddings, stream
from alignment.latents import Latents, LatentShape, Spread
from benchmarks.adapters import Model, live
from benchmarks.latents import RUN_FILE
from benchmarks.record import RESULTS, record
from cluster.storage import Store, open_store
from evaluation.retention import paired_bootstrap
from evaluation.skills import SKILLS
from jobs.config import RunFile, read_run_file
from jobs.latent_training import (
    Foreseen,
    LatentTraining,
    Readers,
    Rows,
    latent_rows,
    train_latents,
)
from jobs.prompt_units import Part, Questions
from jobs.sections import SoftPrompts
from jobs.texts import gather

SKILL = "sentiment"
# What is unlike the run file's own section.
WAYS: Mapping[str, dict[str, Any]] = {
    "as in the run": {},
    "1200 lessons": {"lessons": 1200},
    "half the rate": {"learning_rate": 5e-4},
    "twice the rate": {"learning_rate": 2e-3},
    "twice as wide": {"width": 512, "heads": 8},
    "four blocks": {"blocks": 4},
    "ten epochs": {"epochs": 10},
    "read at 0.35 of the layers": {"depth": 0.35},
    "read at 0.65 of the layers": {"depth": 0.65},
}


def main() -> None:
    """Train by every way, judge, and record."""
    source, target, *chosen = sys.argv[1:]
    file = read_run_file(RUN_FILE)
    told = json.loads((RESULTS / "latents.json").read_text())
    level = told["crossings"][f"{source} -> {target}, {SKILL}"]["level"]
    base, native = (level[name]["value"] for name in ("without the text", "native"))
    crossing = _Crossing.of(file, source, target)
    found = {}
    for name in chosen or WAYS:
        held, test = crossing.right(WAYS[name])
        share = paired_bootstrap(test[:, None], lambda of: of[:, 0])
        found[name] = {
            "held": float(held.mean()),
            "right": asdict(share),
            "retention": (share.value - base) / (native - base),
        }
        print(name, found[name], file=sys.stderr)
        record(
            f"latent_ways.into-{target}",
            {"skill": SKILL, "source": source, "base": base, "native": native, "ways": found},
        )


@dataclass(frozen=True, eq=False)
class _Here(Readers):
    """One model that reads latents in this process."""

    model: Model

    def slopes(self, before: str, examples: Sequence[Example], rows: Rows) -> dict[str, Slopes]:
        return {n: slopes(self.model.engine, before, examples, of) for n, of in rows.items()}

    def foreseen(self, before: str, examples: Sequence[Example], rows: Rows) -> dict[str, Foreseen]:
        return {
            n: foreseen_after(self.model.engine, before, examples, of) for n, of in rows.items()
        }


@dataclass(frozen=True, eq=False)
class _Crossing:
    """A source that reads lines and a target that is asked about them."""

    section: SoftPrompts
    seed: int
    questions: Questions
    source: Model
    target: Model
    store: Store

    @classmethod
    def of(cls, file: RunFile, source: str, target: str) -> "_Crossing":
        assert file.soft_prompt is not None, "it carries latents"
        models = {spec.name: live(spec) for spec in file.models}
        torch.set_num_threads(1)
        questions = Questions(SKILLS[SKILL], gather(file).items[SKILL])
        store = open_store(file.store_location)
        return cls(file.soft_prompt, file.seed, questions, models[source], models[target], store)

    def right(self, way: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Which held and which test items are told right, after training by a way."""
        section = SoftPrompts.model_validate({**dict(self.section), **way})
        name, at = self.target.facts.name, section.depth * (self.source.facts.layers - 1)
        parts: tuple[Part, ...] = ("lessons", "held", "test")
        read = {
            part: stream(self.source.engine, self.questions.texts(part), f"residual.{round(at)}")
            for part in parts
        }
        lessons, held = (self.questions.lessons(part, read[part]) for part in parts[:2])
        some = slice(section.lessons)
        lessons = replace(lessons, states=lessons.states[some], examples=lessons.examples[some])
        torch.manual_seed(self.seed)
        rows = Spread.of(torch.from_numpy(np.concatenate(lessons.states)))
        shape = LatentShape(
            len(rows.mean), section.count, section.width, section.blocks, section.heads
        )
        latents = Latents(shape, rows)
        common = embeddings(self.target.engine, np.arange(LIKELY))
        latents.add(name, Spread.of(torch.from_numpy(common)))
        training = LatentTraining(
            section.learning_rate, batch=section.batch, epochs=section.epochs, seed=self.seed
        )
        ends = [self.source.facts.fingerprint, self.target.facts.fingerprint]
        question = ["latent_ways", ends, SKILL, section.model_dump(mode="json")]
        trained = train_latents(
            latents, [name], lessons, held, training, _Here(self.target), self.store, question
        )
        on_held, on_test = (self._judged(trained.latents, part, read[part]) for part in parts[1:])
        return on_held, on_test

    def _judged(self, latents: Latents, part: Part, states: Sequence[np.ndarray]) -> np.ndarray:
        """Which items of a part the target tells right with latents in place of the text, [m]."""
        questions, name = self.questions, self.target.facts.name
        rows = latent_rows(latents, [name], states)[name]
        unit = questions.judging(self.target.facts, part, rows)
        return questions.skill.foreseen(
            questions.part(part), *foreseen_after(self.target.engine, *unit.args)
        )


if __name__ == "__main__":
    main()
