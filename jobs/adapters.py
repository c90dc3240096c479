"""Adapters of every skill: made in every model, refit in each other one, and judged there.

A model is asked for one thing at a time, and each answer is kept: no two need be loaded together.

Shapes: m items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from actors.catalog import ModelFacts
from actors.examples import Example
from actors.vocabularies import shared_tokens
from evaluation.cells import Key
from evaluation.skill import Item
from evaluation.skills import SKILLS
from evaluation.trained_ways import BASE, NATIVE
from jobs import adapter_units
from jobs.adapter_units import NOTHING, Made, Showing, Taught, What
from jobs.sections import Adapters
from jobs.texts import Texts
from jobs.units import Arrays, Asking, Unit, array_to_texts

ANCHORS, OWN = "refit on anchors", "refit on own texts"
SOLVED = "solved on own texts"  # in closed form
# How much what a text costs counts beside KL. Of its own texts a source that knows the language
# better than the target has more to teach, word by word; anchors show nothing of the skill.
FORESEEN = {ANCHORS: (0.0, 0.0), OWN: (0.5, 2.0), SOLVED: (0.5, 0.5)}
OUTRIGHT = 0.5  # the same, of answers that are learned outright
# What a way reads, and what is read in its place for its control: of own texts what the source
# writes without its adapter.
PLAIN = "plain texts"
_READS = {ANCHORS: ANCHORS, OWN: OWN, SOLVED: OWN}
_IN_PLACE = {ANCHORS: ANCHORS, OWN: PLAIN}
SHUFFLED, ANOTHER = "shuffled teacher", "another skill"
SHUFFLED_SOLVED = "shuffled teacher, solved"
Part = Literal["held", "test"]
Pair = tuple[str, str]  # source, target
Scores = Mapping[str, np.ndarray]  # [m], by what the target has on
Tokens = tuple[np.ndarray, np.ndarray]  # of the source, and the same ones of the target
Lesson = TypeVar("Lesson", bound=tuple[Any, ...])  # pair, way, and what more tells it apart


@dataclass(frozen=True, eq=False)
class Carried:
    """Adapters of one skill that a target may have on: its own, and what each way made of the
    source's. `held` says how well held items are done, by which `way` is chosen. `controls` are
    made in that way, and solved for, of a teacher whose rows are shuffled, and which writes without
    its adapter."""

    made: Mapping[str, Made]
    held: Scores
    way: str
    controls: Mapping[str, Made]

    @property
    def chosen(self) -> Made:
        return self.made[self.way]


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of one skill over one ordered pair: how well the target does each test item as it
    is, with its own adapter, with each way's, and with the controls. `answers` to requests are of
    the target as it is, natively and carried, where they were asked for; `files` are those of the
    carried adapter, as PEFT keeps it."""

    source: str
    target: str
    skill: str
    carried: Carried
    test: Scores
    answers: Mapping[str, list[str]]
    files: Arrays

    @property
    def key(self) -> Key:
        """Source, target, cargo, concept."""
        return self.source, self.target, "lora", self.skill


def ways(section: Adapters) -> tuple[str, ...]:
    """Those of a run."""
    return (ANCHORS, OWN, SOLVED) if section.solve else (ANCHORS, OWN)


def foreseen(way: str, taught: Taught, source: float, target: float) -> float:
    """How much what a text costs counts, of what an average character of anchors costs both."""
    return OUTRIGHT if taught.outright else FORESEEN[way][source < target]


def adapter_files(directory: Path, files: Arrays) -> Path:
    """What is registered of a carried adapter: a PEFT directory."""
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content.tobytes())
    return directory


def carry_adapters(
    section: Adapters, seed: int, texts: Texts, models: Mapping[str, ModelFacts], asking: Asking
) -> list[Adapted]:
    """Every skill over every ordered pair.

    Raises:
        TextError: an anchor or an item of which a tokenizer makes no token.
        PartError: a model lies over several ranks.
        SandboxError: programs are to be run, and cannot be.
        ActorLost: a process died too often.
    """
    adapting = Adapting(section, seed, texts, models, asking)
    native = {skill: adapting.native(skill) for skill in section.skills}
    # Skill by skill: what an adapter changes is large.
    carried = {skill: adapting.carried(skill, native[skill]) for skill in native}
    return [
        each
        for skill, other in zip(native, (*list(native)[1:], next(iter(native))), strict=True)
        for each in adapting.judged(skill, carried[skill], carried[other])
    ]


class Adapting:
    """What is asked of which model."""

    def __init__(
        self,
        section: Adapters,
        seed: int,
        texts: Texts,
        models: Mapping[str, ModelFacts],
        asking: Asking,
    ) -> None:
        self._section, self._seed, self._models, self._asking = section, seed, models, asking
        self._anchors = texts.anchors
        self._items = {
            name: texts.items[name].first(section.lessons, section.held, section.test)
            for name in section.skills
        }
        self._pairs: list[Pair] = list(permutations(models, 2))
        self._ways = ways(section)

    def native(self, skill: str) -> dict[str, Made]:
        """Every model's own adapter."""
        section, items = self._section, self._items[skill]
        how = adapter_units.how(section, self._seed)
        units = {
            name: adapter_units.training(facts, items.lessons, items.held, how)
            for name, facts in self._models.items()
        }
        return self._made(f"{skill}: training adapters", units)

    @cached_property
    def _shared(self) -> dict[Pair, Tokens]:
        """The tokens that two models have, in the source and in the target."""
        units = {name: adapter_units.naming(facts) for name, facts in self._models.items()}
        answers = self._answers("reading vocabularies", units)
        ids = {name: adapter_units.names(answer) for name, answer in answers.items()}
        return {pair: shared_tokens(*(ids[name] for name in pair)) for pair in self._pairs}

    @cached_property
    def _costs(self) -> dict[str, float]:
        """What an average character of anchors costs each model."""
        anchors = self._anchors[: self._section.texts]
        found = adapter_units.costs(self._asking, anchors, *self._models.values())
        return dict(zip(self._models, found, strict=True))

    def carried(self, skill: str, native: Mapping[str, Made]) -> dict[Pair, Carried]:
        """What each way makes of the source's adapter, and which is best on held items."""
        read = self._taught(skill, native)
        each = [(pair, way) for pair in self._pairs for way in self._ways]
        lessons = {(pair, way): read[pair, _READS[way]] for pair, way in each}
        remade = self._remade(f"{skill}: carrying adapters", lessons, native)
        made = {
            pair: {NATIVE: native[pair[1]], **{way: remade[pair, way] for way in self._ways}}
            for pair in self._pairs
        }
        held = self.scores("held", skill, made)
        best = {pair: _best(held[pair], self._ways) for pair in self._pairs}
        named = {
            pair: {SHUFFLED: OWN if way == SOLVED else way}
            | ({SHUFFLED_SOLVED: SOLVED} if self._section.solve else {})
            for pair, way in best.items()
        }
        shuffled = {
            (pair, way): read[pair, _IN_PLACE[_READS[way]]].shuffled(self._seed)
            for pair, of in named.items()
            for way in of.values()
        }
        controls = self._remade(f"{skill}: carrying controls", shuffled, native)
        return {
            pair: Carried(
                made[pair],
                held[pair],
                way,
                {name: controls[pair, by] for name, by in named[pair].items()},
            )
            for pair, way in best.items()
        }

    def judged(
        self, skill: str, carried: Mapping[Pair, Carried], others: Mapping[Pair, Carried]
    ) -> list[Adapted]:
        """Test items, with controls: `others` are of another skill, if there is one."""
        adapters = {}
        for pair, each in carried.items():
            adapters[pair] = {**each.made, **each.controls}
            if others is not carried:
                adapters[pair][ANOTHER] = others[pair].chosen
        test = self.scores("test", skill, adapters)
        title = f"{skill}: writing adapters"
        files = self.files(title, {pair: each.chosen for pair, each in carried.items()})
        answers = self._safety(skill, carried) if self._section.safety else {}
        return [
            Adapted(*pair, skill, each, test[pair], answers.get(pair, {}), files[pair])
            for pair, each in carried.items()
        ]

    def files(self, title: str, adapters: Mapping[Pair, Made]) -> dict[Pair, Arrays]:
        """Those of an adapter of each target, as PEFT keeps it."""
        units = {
            pair: adapter_units.as_peft(self._models[pair[1]], each)
            for pair, each in adapters.items()
        }
        return self._answers(title, units)

    def carried_on(
        self,
        title: str,
        skill: str,
        legs: Mapping[What, tuple[Pair, Made]],
        native: Mapping[str, Made],
        times: int = 1,
    ) -> dict[What, Made]:
        """What each target makes of an adapter that its source has on, by texts of its own, which
        it reads so many `times` as by a refit."""
        sources = {what: pair[0] for what, (pair, _) in legs.items()}
        on = {what: adapter for what, (_, adapter) in legs.items()}
        own = self._own_texts(f"{title}, writing texts", skill, sources, on)
        units = {
            what: self._changing(skill, OWN, pair, adapter, own[what])
            for what, (pair, adapter) in legs.items()
        }
        answers = self._answers(f"{title}, reading what adapters change", units)
        lessons = {
            (pair, OWN, what): self._read(pair, units[what], own[what], answers[what])
            for what, (pair, _) in legs.items()
        }
        found = self._remade(f"{title}, carrying adapters", lessons, native, times)
        return {what: made for (*_, what), made in found.items()}

    def _taught(self, skill: str, native: Mapping[str, Made]) -> dict[tuple[Pair, str], Taught]:
        """What each source's adapter changes, by pair and by what is read."""
        names = {name: name for name in native}
        own = self._own_texts(f"{skill}: writing texts", skill, names, native)
        nothing = dict.fromkeys(native, NOTHING)
        plain = self._own_texts(f"{skill}: writing plain texts", skill, names, nothing)
        anchors = [Example(text) for text in self._anchors[: self._section.texts]]
        read = {}
        for pair in self._pairs:
            read[pair, ANCHORS] = anchors
            read[pair, OWN], read[pair, PLAIN] = own[pair[0]], plain[pair[0]]
        units = {
            (pair, way): self._changing(skill, way, pair, native[pair[0]], texts)
            for (pair, way), texts in read.items()
        }
        answers = self._answers(f"{skill}: reading what adapters change", units)
        return {
            key: self._read(key[0], units[key], texts, answers[key]) for key, texts in read.items()
        }

    def _changing(
        self, skill: str, way: str, pair: Pair, adapter: Made, texts: Sequence[Example]
    ) -> Unit:
        """What an adapter of the source changes in texts, over tokens that the target has."""
        return adapter_units.changing(
            self._models[pair[0]],
            adapter,
            texts,
            self._shared[pair][0],
            self._section.tokens,
            outright=SKILLS[skill].judgement and way != ANCHORS,
        )

    def _read(self, pair: Pair, unit: Unit, texts: Sequence[Example], answer: Arrays) -> Taught:
        return adapter_units.taught(unit, texts, self._shared[pair][1], answer)

    def _own_texts(
        self, title: str, skill: str, sources: Mapping[What, str], on: Mapping[What, Made]
    ) -> dict[What, list[Example]]:
        """What models write as a skill is asked for, with adapters on."""
        of = SKILLS[skill]
        showing = Showing(of.asking, of.shown, of.judgement)
        asked = adapter_units.asked(
            self._asking,
            f"{skill}: writing what is judged",
            self._models,
            showing,
            self._anchors,
            self._section.texts,
            self._seed,
        )
        models = {what: self._models[name] for what, name in sources.items()}
        openings = {what: asked[name] for what, name in sources.items()}
        return adapter_units.own_texts(
            self._asking, title, models, on, openings, showing, self._seed
        )

    def _remade(
        self,
        title: str,
        lessons: Mapping[Lesson, Taught],
        native: Mapping[str, Made],
        times: int = 1,
    ) -> dict[Lesson, Made]:
        """What the target makes of what it is taught, by pair, way and what more tells it apart."""
        units, section = {}, self._section
        if times > 1:
            longer = {"refit": section.refit * times, "refit_epochs": section.refit_epochs * times}
            section = section.model_copy(update=longer)
        for lesson, taught in lessons.items():
            pair, way, *_ = lesson
            told = foreseen(way, taught, *(self._costs[name] for name in pair))
            how, most = "solved" if way == SOLVED else "refit", None
            if how == "refit":
                most = int(section.refit * native[pair[1]].tokens)
            units[lesson] = adapter_units.remaking(
                self._models[pair[1]], taught, how, told, section, self._seed, most
            )
        return self._made(title, units)

    def scores(
        self, part: Part, name: str, adapters: Mapping[Pair, Mapping[str, Made]]
    ) -> dict[Pair, dict[str, np.ndarray]]:
        """How well each target does items of a skill, with nothing on and with each of these."""
        skill, items = SKILLS[name], self._part(name, part)
        units = {
            (pair, on): adapter_units.judging(self._models[pair[1]], skill, items, made)
            for pair, of in adapters.items()
            for on, made in {BASE: NOTHING, **of}.items()
        }
        found: dict[Pair, dict[str, np.ndarray]] = {}
        for (pair, on), answer in self._answers(f"{name}: judging on {part}", units).items():
            found.setdefault(pair, {})[on] = adapter_units.score(skill, items, answer)
        return found

    def _safety(
        self, skill: str, carried: Mapping[Pair, Carried]
    ) -> dict[Pair, dict[str, list[str]]]:
        """What each target answers to requests as it is, natively and with what is carried."""
        units = {
            (pair, on): adapter_units.answering(self._models[pair[1]], made)
            for pair, each in carried.items()
            for on, made in ((BASE, NOTHING), (NATIVE, each.made[NATIVE]), (each.way, each.chosen))
        }
        found: dict[Pair, dict[str, list[str]]] = {}
        for (pair, on), answer in self._answers(f"{skill}: answering requests", units).items():
            found.setdefault(pair, {})[on] = array_to_texts(answer["texts"])
        return found

    def _part(self, skill: str, part: Part) -> Sequence[Item]:
        items = self._items[skill]
        return items.held if part == "held" else items.test

    def _made(self, title: str, units: Mapping[What, Unit]) -> dict[What, Made]:
        answers = self._answers(title, units)
        return {what: adapter_units.made(units[what], each) for what, each in answers.items()}

    def _answers(self, title: str, units: Mapping[What, Unit]) -> dict[What, Arrays]:
        answers = self._asking.by_waves(title, list(units.values()))
        return dict(zip(units, answers, strict=True))


def _best(held: Scores, ways: Sequence[str]) -> str:
    return max(ways, key=lambda way: float(held[way].mean()))
