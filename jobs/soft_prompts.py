"""Texts that one model reads, and others as a few latents in their place, for every skill.

Shapes: m items, t tokens of a text, i width of a site, k latents, d width of an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from actors.catalog import ModelFacts
from alignment.byte_rows import byte_rows
from alignment.latents import Latents, LatentShape, Spread
from evaluation.cargos.soft_prompt import BYTES
from evaluation.cells import Key
from evaluation.skills import SKILLS
from evaluation.trained_ways import NATIVE, Effort
from jobs import prompt_units
from jobs.config import ConfigError
from jobs.latent_training import (
    LatentTraining,
    TrainedLatents,
    latent_rows,
    read_rows,
    train_latents,
)
from jobs.prompt_natives import PARTS, Alone, Scores, alone
from jobs.prompt_units import Part, Questions, asked
from jobs.readers import LiveReaders
from jobs.sections import SoftPrompts
from jobs.texts import Texts
from jobs.units import Asking
from jobs.waves import Crew

JOINT, LATER = "joint training", "joining later"
ANOTHER, MEAN, ZERO = "another text's latents", "mean latents", "zero latents"
LATENTS_FILE = "latents.safetensors"
Parts = Mapping[Part, Sequence[np.ndarray]]  # what an encoder holds of the texts of each part


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


def require_forms(section: SoftPrompts) -> None:
    """Refuse skills whose items are not a text in a form, or not judged by what is foreseen.

    Raises:
        ConfigError: one is; the line says which can be.
    """
    able = [name for name, each in SKILLS.items() if "{}" in each.form and each.measure != "rule"]
    for name in section.skills:
        if name not in able:
            raise ConfigError(
                f"soft_prompt.skills: {name} does not ask about a text, by what is likely after "
                f"it; allowed: {', '.join(able)}"
            )


def require_readers(section: SoftPrompts, names: Sequence[str], crew: Crew) -> None:
    """Make sure that those who read one encoder's latents can be loaded at the same time.

    Raises:
        ConfigError: they cannot.
    """
    together = [{*names} - {encoder} for encoder in section.encoders or names]
    if section.bytes:
        together.append({*names})
    for readers in together:
        if not any(readers <= {*wave} for wave in crew.waves):
            raise ConfigError(
                f"soft_prompt: {', '.join(sorted(readers))} do not fit into the cluster together, "
                "and latents are trained by all who read them: use a larger one, or leave one out"
            )


def carry_prompts(
    section: SoftPrompts,
    seed: int,
    texts: Texts,
    models: Mapping[str, ModelFacts],
    asking: Asking,
) -> list[Prompted]:
    """Every skill from every encoder into every other model.

    Raises:
        TextError: an item of which a tokenizer makes no token.
        ShardingError: a model is held so that no gradients go through it.
        ActorLost: a process died too often.
    """
    found = []
    for skill in section.skills:
        questions = Questions(SKILLS[skill], texts.items[skill].first(section.lessons))
        natively = alone(section, seed, questions, models, asking)
        known = (section, seed, questions, models, natively, asking)
        bytes_alone = _Encoding(*known, None).of_bytes() if section.bytes else {}
        for encoder in section.encoders or tuple(models):
            found += _Encoding(*known, models[encoder]).carried(bytes_alone)
    return found


def prompt_files(directory: Path, prompted: Prompted) -> Path:
    """What is registered of a pair: the resampler, and the target's adapter."""
    directory.mkdir(parents=True)
    (directory / LATENTS_FILE).write_bytes(prompted.latents)
    return directory


class _Encoding:
    """Latents of what one model holds of a skill's texts, or of their bytes alone."""

    def __init__(
        self,
        section: SoftPrompts,
        seed: int,
        questions: Questions,
        models: Mapping[str, ModelFacts],
        natively: Mapping[str, Alone],
        asking: Asking,
        encoder: ModelFacts | None,
    ) -> None:
        self._section, self._seed, self._questions = section, seed, questions
        self._models, self._natively, self._asking = models, natively, asking
        self._encoder, self._name, self._site = encoder, BYTES, ""
        if encoder is not None:
            self._name = encoder.name
            self._site = f"residual.{round(section.depth * (encoder.layers - 1))}"

    def of_bytes(self) -> dict[str, np.ndarray]:
        """How well every model does each test item with latents of bytes."""
        states, names = self._states(), tuple(self._models)
        trained = {} if self._section.joint else self._apart(names, states)
        each = {name: of for (name, _), of in (trained or self._jointly(names, states)).items()}
        scores = self._scores(
            {
                (name, "test", BYTES): latent_rows(of.latents, [name], states["test"])[name]
                for name, of in each.items()
            }
        )
        return {name: of["test"][BYTES] for name, of in scores.items()}

    def carried(self, of_bytes: Mapping[str, np.ndarray]) -> list[Prompted]:
        """What every other model makes of them, beside latents of bytes, where there are any."""
        states = self._states()
        readers = [name for name in self._models if name != self._name]
        apart = self._apart(readers, states)
        trained = self._jointly(readers, states) if self._section.joint or not apart else {}
        trained |= {key: of for key, of in apart.items() if key not in trained}
        return self._judged(readers, trained, states, of_bytes)

    def _states(self) -> Parts:
        """What the encoder holds of each text of every part, [t, i]."""
        parts: tuple[Part, ...] = ("lessons", *PARTS)
        texts = {part: self._questions.texts(part) for part in parts}
        if self._encoder is None:
            return {part: [byte_rows(text) for text in of] for part, of in texts.items()}
        units = {
            part: prompt_units.stream(self._encoder, of, self._site) for part, of in texts.items()
        }
        answers = asked(self._asking, self._title("reading texts"), units)
        return {
            part: np.split(of["rows"], np.cumsum(of["counts"])[:-1]) for part, of in answers.items()
        }

    def _jointly(
        self, readers: Sequence[str], states: Parts
    ) -> dict[tuple[str, str], TrainedLatents]:
        """By reader and way: a resampler with all of them."""
        return dict.fromkeys([(name, JOINT) for name in readers], self._together(readers, states))

    def _apart(
        self, readers: Sequence[str], states: Parts
    ) -> dict[tuple[str, str], TrainedLatents]:
        """By reader and way: those that are there first, and those that join later. Nothing, where
        there are not both."""
        late = [name for name in readers if name in self._section.later]
        early = [name for name in readers if name not in late]
        if not (late and early):
            return {}
        first = self._together(early, states)
        return dict.fromkeys([(name, JOINT) for name in early], first) | {
            (name, LATER): self._joined(name, early, first, states) for name in late
        }

    def _together(self, readers: Sequence[str], states: Parts) -> TrainedLatents:
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
                latents.add(name, self._natively[name].embeddings)
        return self._trained(readers, latents, states, [])

    def _joined(
        self, name: str, early: Sequence[str], first: TrainedLatents, states: Parts
    ) -> TrainedLatents:
        """One more reader of a resampler that stays as it is."""
        latents = Latents.from_bytes(first.latents.to_bytes())
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            latents.add(name, self._natively[name].embeddings)
        return self._trained([name], latents, states, early)

    def _trained(
        self, readers: Sequence[str], latents: Latents, states: Parts, early: Sequence[str]
    ) -> TrainedLatents:
        """Readers and the resampler; readers alone, where `early` ones are there before them."""
        section, asking, questions = self._section, self._asking, self._questions
        training = LatentTraining(
            section.learning_rate, batch=section.batch, epochs=section.epochs, seed=self._seed
        )
        lessons, held = (questions.lessons(part, states[part]) for part in ("lessons", "held"))
        question = [
            BYTES if self._encoder is None else self._encoder.fingerprint,
            [self._models[name].fingerprint for name in (*readers, *early)],
            asdict(latents.shape),
            self._site,
            questions.before,
            [prompt_units.said(each.examples) for each in (lessons, held)],
            [questions.texts(part) for part in ("lessons", "held")],
            [*early],
        ]
        live = LiveReaders(
            asking.crew,
            asking.restarts,
            lambda: asking.reporter.note("a model was lost; it is asked again"),
        )
        title = self._title(f"training latents of {self._name}")
        if early:
            title += f", {readers[0]} joins"
        with asking.reporter.stage(title, section.epochs * len(lessons.examples)) as stage:
            return train_latents(
                latents,
                readers,
                lessons,
                held,
                training,
                live,
                asking.store,
                question,
                stage.advance,
                resampler=not early,
            )

    def _judged(
        self,
        readers: Sequence[str],
        trained: Mapping[tuple[str, str], TrainedLatents],
        states: Parts,
        of_bytes: Mapping[str, np.ndarray],
    ) -> list[Prompted]:
        """By each way on held items and on test; then controls of the one that held items chose."""
        scores = self._scores(
            {
                (name, part, way): latent_rows(of.latents, [name], states[part])[name]
                for (name, way), of in trained.items()
                for part in PARTS
            }
        )
        best = {
            name: max(
                (way for reader, way in trained if reader == name),
                key=lambda way, name=name: float(scores[name]["held"][way].mean()),
            )
            for name in readers
        }
        controls = self._scores(
            {
                (name, "test", control): rows
                for name in readers
                for control, rows in _controls(
                    trained[name, best[name]].latents, name, states
                ).items()
            }
        )
        found = []
        for name in readers:
            ways = {way: of for (reader, way), of in trained.items() if reader == name}
            efforts = {way: Effort(of.held_out, of.tokens, of.seconds) for way, of in ways.items()}
            plain = {BYTES: of_bytes[name]} if name in of_bytes else {}
            natively, chosen = self._natively[name], ways[best[name]].latents
            found.append(
                Prompted(
                    source=self._name,
                    target=name,
                    skill=self._questions.skill.name,
                    held=natively.scores["held"] | scores[name]["held"],
                    test={
                        **natively.scores["test"],
                        **scores[name]["test"],
                        **controls[name]["test"],
                        **plain,
                    },
                    efforts={NATIVE: natively.effort, **efforts},
                    way=best[name],
                    site=self._site,
                    latents=chosen.only(name).to_bytes(),
                    learned=sum(each.numel() for each in chosen.reader(name).parameters()),
                )
            )
        return found

    def _scores(
        self, rows: Mapping[tuple[str, Part, str], np.ndarray]
    ) -> dict[str, dict[Part, Scores]]:
        """How well models do items with rows [m, k, d] in place of texts; by model, part, and what
        rows are called."""
        questions = self._questions
        units = {
            (name, part, what): questions.judging(self._models[name], part, of)
            for (name, part, what), of in rows.items()
        }
        found: dict[str, dict[Part, Scores]] = {}
        answers = asked(self._asking, self._title("judging latents"), units)
        for (name, part, what), answer in answers.items():
            done = questions.skill.foreseen(questions.part(part), answer["nats"], answer["tokens"])
            found.setdefault(name, {}).setdefault(part, {})[what] = done
        return found

    def _title(self, what: str) -> str:
        return f"{self._questions.skill.name}: {what}"


def _controls(latents: Latents, name: str, states: Parts) -> dict[str, np.ndarray]:
    """What should carry nothing of a test text, [m, k, d]."""
    test = states["test"]
    mean = read_rows(latents, states["lessons"]).mean(0, keepdim=True)
    lengths = torch.tensor([len(each) for each in test])
    found = {ANOTHER: latent_rows(latents, [name], [*test[1:], test[0]])[name]}
    for control, of in ((MEAN, mean), (ZERO, torch.zeros_like(mean))):
        with torch.no_grad():
            rows = latents.reader(name)(of.expand(len(test), -1, -1), lengths)
        found[control] = rows.numpy()
    return found
