"""Texts that one model reads, and others as a few latents in their place, for every skill.

Shapes: m items, t tokens of a text, i width of a site, k latents, d width of an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from actors.catalog import ModelFacts
from actors.examples import Example
from actors.prompt_training import PromptTraining
from alignment.latents import Latents, LatentShape, Spread
from cluster.storage import address
from evaluation.cells import Key
from evaluation.prompt_cells import RELAY
from evaluation.skill import Item, Items, Skill, options
from evaluation.skills import SKILLS
from evaluation.trained_ways import BASE, NATIVE, Effort
from jobs import prompt_units
from jobs.config import ConfigError, RunFile
from jobs.latent_training import (
    LatentTraining,
    Lessons,
    Rows,
    TrainedLatents,
    latent_rows,
    read_rows,
    train_latents,
)
from jobs.readers import LiveReaders
from jobs.sections import SoftPrompts
from jobs.texts import Texts
from jobs.units import Asking, array_to_texts
from jobs.waves import Crew

JOINT, LATER = "trained together", "joined later"
ANOTHER, MEAN, ZERO = "another text's latents", "mean latents", "zero latents"
LATENTS_FILE = "latents.safetensors"
Parts = Mapping[str, Sequence[np.ndarray]]  # what an encoder holds of the texts of each part
Scores = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Prompted:
    """What came of one skill over one ordered pair: how well the target does each item alone,
    natively, by each way and with controls; what each cost; and the latents of the way that held
    items chose, with the target's adapter alone."""

    source: str
    target: str
    skill: str
    held: Scores
    test: Scores
    efforts: Mapping[str, Effort]
    way: str
    site: str
    latents: bytes
    learned: int

    @property
    def key(self) -> Key:
        """Source, target, cargo, concept."""
        return self.source, self.target, "soft_prompt", self.skill


def require_forms(run: RunFile) -> None:
    """Refuse skills whose items are not a text in a form, or not judged by what is foreseen.

    Raises:
        ConfigError: one is; the line says which can be.
    """
    able = [name for name, each in SKILLS.items() if "{}" in each.form and each.measure != "rule"]
    for name in () if run.soft_prompt is None else run.soft_prompt.skills:
        if name not in able:
            raise ConfigError(
                f"soft_prompt.skills: {name} does not ask about a text, by what is likely after "
                f"it; allowed: {', '.join(able)}"
            )


def require_readers(run: RunFile, crew: Crew) -> None:
    """Make sure that those who read one encoder's latents can be loaded at the same time.

    Raises:
        ConfigError: they cannot.
    """
    if run.soft_prompt is None:
        return
    names = [spec.name for spec in run.models]
    for encoder in run.soft_prompt.encoders or names:
        readers = {*names} - {encoder}
        if not any(readers <= {*wave} for wave in crew.waves):
            raise ConfigError(
                f"soft_prompt: {', '.join(sorted(readers))} do not fit into the cluster together, "
                "and latents are trained by all who read them: use a larger one, or leave one out"
            )


def carry_prompts(
    run: RunFile, texts: Texts, models: Mapping[str, ModelFacts], asking: Asking
) -> list[Prompted]:
    """Every skill from every encoder into every other model; nothing where a run has no section.

    Raises:
        TextError: an item of which a tokenizer makes no token.
        ShardingError: a model is held so that no gradients go through it.
        ActorLost: a process died too often.
    """
    if run.soft_prompt is None:
        return []
    section = run.soft_prompt
    return [
        each
        for skill in section.skills
        for each in _Skilled(section, run.seed, SKILLS[skill], texts, models, asking).carried()
    ]


def prompt_files(directory: Path, prompted: Prompted) -> Path:
    """What is registered of a pair: the resampler, and the target's adapter."""
    directory.mkdir(parents=True)
    (directory / LATENTS_FILE).write_bytes(prompted.latents)
    return directory


class _Skilled:
    """One skill: what is asked of which model."""

    def __init__(
        self,
        section: SoftPrompts,
        seed: int,
        skill: Skill,
        texts: Texts,
        models: Mapping[str, ModelFacts],
        asking: Asking,
    ) -> None:
        self._section, self._seed, self._skill = section, seed, skill
        self._models, self._asking = models, asking
        of = texts.items[skill.name]
        self._items = Items(of.lessons[: section.lessons], of.held, of.test)
        # A token of its own for the space would be a token that no text has.
        self._before = skill.form.partition("{}")[0].rstrip()

    def carried(self) -> list[Prompted]:
        """From every encoder into every other model."""
        alone = {name: self._alone(facts) for name, facts in self._models.items()}
        found = []
        for name in self._section.encoders or tuple(self._models):
            found += self._from(name, alone)
        return found

    # --- the target alone, and with its own prompt ---------------------------------------------

    def _alone(self, model: ModelFacts) -> "_Alone":
        section, skill = self._section, self._skill
        by = PromptTraining(
            count=section.count,
            learning_rate=section.prompt_learning_rate,
            epochs=section.prompt_epochs,
            seed=self._seed,
        )
        lessons, held = (
            [Example(item.given + item.right, len(item.given)) for item in of]
            for of in (self._items.lessons, self._items.held)
        )
        unit = prompt_units.training(model, lessons, held, by)
        native = self._asking.one(f"{skill.name}: training prompts", unit)
        common = self._asking.one("reading embeddings", prompt_units.common(model))
        scores = {part: self._native(model, part, native["rows"]) for part in ("held", "test")}
        effort = Effort(
            native["held_out"].tolist(), int(native["tokens"]), float(native["seconds"])
        )
        return _Alone(effort, Spread.of(torch.from_numpy(common["answer"])), scores)

    def _native(self, model: ModelFacts, part: str, rows: np.ndarray) -> Scores:
        """Without the text, with it after the prompt, and with no more of it than is relayed."""
        title, items = f"{self._skill.name}: judging on {part}", self._part(part)
        texts = [self._text(item) for item in items]
        cut = self._asking.one(title, prompt_units.beginnings(model, texts, self._section.count))
        relayed = array_to_texts(cut["texts"])
        forms = {
            NATIVE: items,
            RELAY: [
                replace(item, given=before + text + after)
                for (before, _, after), text, item in zip(
                    map(self._skill.parts, items), relayed, items, strict=True
                )
            ],
        }
        found = {BASE: self._scores(title, model, items, None)}
        for name, of in forms.items():
            examples = [Example(given + text, len(given)) for given, text in options(of)]
            unit = prompt_units.foreseen_prompted(model, examples, rows)
            answer = self._asking.one(title, unit)
            found[name] = self._skill.foreseen(of, answer["nats"], answer["tokens"])
        return found

    # --- latents ---------------------------------------------------------------------------------

    def _from(self, encoder: str, alone: Mapping[str, "_Alone"]) -> list[Prompted]:
        """What every other model makes of latents of one."""
        states = {part: self._states(encoder, part) for part in ("lessons", "held", "test")}
        readers = [name for name in self._models if name != encoder]
        together = self._together(encoder, readers, states, alone)
        trained = {(name, JOINT): together for name in readers}
        late = [name for name in readers if name in self._section.later]
        early = [name for name in readers if name not in late]
        if late and early:
            first = self._together(encoder, early, states, alone)
            for name in late:
                trained[name, LATER] = self._joined(encoder, name, early, first, states, alone)
        return [self._prompted(encoder, name, trained, states, alone[name]) for name in readers]

    def _states(self, encoder: str, part: str) -> list[np.ndarray]:
        """What the encoder holds of each text of a part, [t, i]."""
        model, site = self._models[encoder], self._site(encoder)
        texts = [self._text(item) for item in self._part(part)]
        title = f"{self._skill.name}: reading texts"
        answer = self._asking.one(title, prompt_units.stream(model, texts, site))
        return np.split(answer["rows"], np.cumsum(answer["counts"])[:-1])

    def _site(self, encoder: str) -> str:
        """Where an encoder is read."""
        return f"residual.{round(self._section.depth * (self._models[encoder].layers - 1))}"

    def _together(
        self,
        encoder: str,
        readers: Sequence[str],
        states: Parts,
        alone: Mapping[str, "_Alone"],
    ) -> TrainedLatents:
        """A resampler with readers, all trained at once."""
        section = self._section
        rows = Spread.of(torch.from_numpy(np.concatenate(states["lessons"])))
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            shape = LatentShape(
                len(rows.mean), section.count, section.width, section.blocks, section.heads
            )
            latents = Latents(shape, rows)
            for name in readers:
                latents.add(name, alone[name].embeddings)
        return self._trained(encoder, readers, latents, states, [], resampler=True)

    def _joined(
        self,
        encoder: str,
        name: str,
        early: Sequence[str],
        first: TrainedLatents,
        states: Parts,
        alone: Mapping[str, "_Alone"],
    ) -> TrainedLatents:
        """One more reader of a resampler that stays as it is."""
        latents = Latents.from_bytes(first.latents.to_bytes())
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            latents.add(name, alone[name].embeddings)
        return self._trained(encoder, [name], latents, states, early, resampler=False)

    def _trained(
        self,
        encoder: str,
        readers: Sequence[str],
        latents: Latents,
        states: Parts,
        early: Sequence[str],
        *,
        resampler: bool,
    ) -> TrainedLatents:
        section, reporter = self._section, self._asking.reporter
        training = LatentTraining(
            section.learning_rate, batch=section.batch, epochs=section.epochs, seed=self._seed
        )
        lessons, held = (self._lessons(part, states[part]) for part in ("lessons", "held"))
        question = [
            self._models[encoder].fingerprint,
            [self._models[name].fingerprint for name in (*readers, *early)],
            asdict(latents.shape),
            section.depth,
            [prompt_units.said(each.examples) for each in (lessons, held)],
            [[self._text(item) for item in self._part(part)] for part in ("lessons", "held")],
            [*early],
        ]
        live = LiveReaders(
            self._asking.crew,
            self._asking.restarts,
            lambda: reporter.note("a model was lost; it is asked again"),
        )
        title = f"{self._skill.name}: training latents of {encoder}"
        if early:
            title += f", {readers[0]} joins"
        with reporter.stage(title, section.epochs * len(lessons.examples)) as stage:
            return train_latents(
                latents,
                readers,
                lessons,
                held,
                training,
                live,
                self._asking.store,
                address(question),
                stage.advance,
                resampler=resampler,
            )

    def _prompted(
        self,
        encoder: str,
        name: str,
        trained: Mapping[tuple[str, str], TrainedLatents],
        states: Parts,
        alone: "_Alone",
    ) -> Prompted:
        ways = {way: of for (reader, way), of in trained.items() if reader == name}
        title, model = f"{self._skill.name}: judging latents", self._models[name]
        held, test = dict(alone.scores["held"]), dict(alone.scores["test"])
        for way, of in ways.items():
            for part, found in (("held", held), ("test", test)):
                rows = latent_rows(of.latents, [name], states[part])
                found[way] = self._scores(title, model, self._part(part), rows[name])
        best = max(ways, key=lambda way: float(held[way].mean()))
        chosen = ways[best].latents
        for control, rows in _controls(chosen, name, states).items():
            test[control] = self._scores(title, model, self._part("test"), rows[name])
        efforts = {
            NATIVE: alone.effort,
            **{way: Effort(of.held_out, of.tokens, of.seconds) for way, of in ways.items()},
        }
        learned = sum(each.numel() for each in chosen.reader(name).parameters())
        kept = chosen.only(name).to_bytes()
        of = encoder, name, self._skill.name, held, test, efforts, best
        return Prompted(*of, self._site(encoder), kept, learned)

    # --- items -----------------------------------------------------------------------------------

    def _part(self, part: str) -> tuple[Item, ...]:
        return {
            "lessons": self._items.lessons,
            "held": self._items.held,
            "test": self._items.test,
        }[part]

    def _text(self, item: Item) -> str:
        """What stands in the form."""
        return self._skill.parts(item)[1]

    def _lessons(self, part: str, states: Sequence[np.ndarray]) -> Lessons:
        examples = [self._example(item, item.right) for item in self._part(part)]
        return Lessons(self._before, states, examples)

    def _example(self, item: Item, text: str) -> Example:
        """What comes after latents, and then what is to be foreseen."""
        after = self._skill.parts(item)[2]
        return Example(after + text, len(after))

    def _scores(
        self, title: str, model: ModelFacts, items: Sequence[Item], rows: np.ndarray | None
    ) -> np.ndarray:
        """How well items are done [m] with latents [m, k, d] in place of texts, or without."""
        examples, numbers = [], []
        for number, item in enumerate(items):
            for text in (item.right, *item.others):
                examples.append(self._example(item, text))
                numbers.append(number)
        read = None if rows is None else rows[numbers]
        unit = prompt_units.foreseen_after(model, self._before, examples, read)
        answer = self._asking.one(title, unit)
        return self._skill.foreseen(items, answer["nats"], answer["tokens"])


@dataclass(frozen=True, eq=False)
class _Alone:
    """A target without any other model: what its own prompt cost, the statistics of its embeddings,
    and its scores on each part, natively, without the text, and with as much as is relayed."""

    effort: Effort
    embeddings: Spread
    scores: Mapping[str, Scores]


def _controls(latents: Latents, name: str, states: Parts) -> dict[str, Rows]:
    """What should carry nothing of a test text."""
    other = [*states["test"][1:], states["test"][0]]
    mean = read_rows(latents, states["lessons"]).mean(0, keepdim=True)
    many = len(states["test"])
    plain = {MEAN: mean, ZERO: torch.zeros_like(mean)}
    lengths = torch.tensor([len(each) for each in states["test"]])
    found = {ANOTHER: latent_rows(latents, [name], other)}
    for control, of in plain.items():
        with torch.no_grad():
            rows = latents.reader(name)(of.expand(many, -1, -1), lengths)
        found[control] = {name: rows.numpy()}
    return found
