"""What models are asked about adapters, and how answers are kept and read again.

Shapes: n rows of a text, k tokens that both models have, m items.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from actors.adapter_refit import Changes
from actors.adapter_solving import Solving
from actors.adapter_training import AdapterTraining, TrainedAdapter
from actors.catalog import ModelFacts
from actors.examples import Example
from actors.vocabularies import shared_tokens
from alignment.updates import Update, from_arrays, to_arrays
from evaluation import safety
from evaluation.skill import Item, Skill, options
from jobs.sections import Adapters
from jobs.units import Arrays, Asking, Unit, array_to_texts, texts_to_array

How = Literal["refit", "solved"]
What = TypeVar("What", bound=Hashable)
WORDS, TOKENS = 16, 24  # that go into a form, and in how many tokens a source writes them
# Of a judgement fewer: the more are asked of in as many tokens.
FILLING, FILLING_TOKENS = 10, 13
LIKELY = 0.05  # so likely beside the likeliest is every token that a source writes into a form
FEW = 3  # words of that, else they are a text's own
ASKED = 2  # times as many are asked of as texts are read: they are shorter
RARE = 0.1  # of answers: not asked of further
HELD_OUT = 24  # texts of a refit at most, on which its loss is looked at: a quarter of all
LEAST = 8  # texts of a refit


@dataclass(frozen=True, eq=False)
class Made:
    """An adapter, where it is kept, and how it was made: what it lost on held-out texts before any
    step and after each epoch, how many tokens were read for it, and how long that took."""

    to: str
    updates: Mapping[str, Update]
    held_out: tuple[float, ...]
    tokens: int
    seconds: float


NOTHING = Made("", {}, (), 0, 0.0)


@dataclass(frozen=True, eq=False)
class Taught:
    """What a source's adapter changes in some texts, over tokens [k] of the target."""

    to: str
    texts: Sequence[Example]
    changes: Sequence[Changes]
    tokens: np.ndarray

    @property
    def outright(self) -> bool:
        return self.changes[0].outright

    def shuffled(self, seed: int) -> "Taught":
        """The change of each row is another's."""
        added = np.concatenate([each.added for each in self.changes])
        drawn = np.random.default_rng(seed).permutation(added)
        ends = np.cumsum([len(each.ends) for each in self.changes])[:-1]
        both = zip(self.changes, np.split(drawn, ends), strict=True)
        changes = [replace(each, added=rows) for each, rows in both]
        return Taught(f"{self.to}, shuffled {seed}", self.texts, changes, self.tokens)


def how(section: Adapters, seed: int) -> AdapterTraining:
    """How a skill's own lessons are learned."""
    return AdapterTraining(
        rank=section.rank,
        alpha=2.0 * section.rank,
        learning_rate=section.learning_rate,
        batch=section.batch,
        epochs=section.epochs,
        seed=seed,
    )


def training(
    model: ModelFacts, lessons: Sequence[Item], held: Sequence[Item], by: AdapterTraining
) -> Unit:
    """An adapter that a skill's own lessons teach."""
    taught, looked_at = ([_example(each) for each in of] for of in (lessons, held))
    question = [_digest([asdict(each) for each in of]) for of in (taught, looked_at)]
    args = (taught, looked_at, by)
    return Unit(model, "train_adapter", args, [*question, asdict(by)], _kept)


@dataclass(frozen=True)
class Showing:
    """How a model shows what an adapter teaches: in so many tokens after a form, or of no form in a
    text of its own; and whether that is a judgement of what stands in the form."""

    form: str
    tokens: int
    judgement: bool

    @property
    def before(self) -> str:
        """What the form begins with."""
        return self.form.partition("{}")[0].rstrip()

    @property
    def filling(self) -> tuple[int, int]:
        """How many words stand in the form, and in how many tokens a source writes them."""
        return (FILLING, FILLING_TOKENS) if self.judgement else (WORDS, TOKENS)


def asked(
    asking: Asking,
    title: str,
    sources: Mapping[str, ModelFacts],
    showing: Showing,
    anchors: Sequence[str],
    texts: int,
    seed: int,
) -> dict[str, list[str]]:
    """After what each source shows it, once for each of so many anchors; of a judgement, of more.

    Where a form begins with words, or something is to be judged, each source as it is goes on from
    there: what an adapter does it may do only where it is asked for what it was taught. A form of
    which nothing is known has words of the anchors in it.
    """
    form, before = showing.form, showing.before
    if not showing.judgement and not before:
        return dict.fromkeys(sources, openings(form, anchors[:texts]))
    some = anchors[: (ASKED if showing.judgement else 1) * texts]
    begun = [before or text.split()[0] for text in some]
    _, tokens = showing.filling
    units = [
        _writing(each, NOTHING, begun, tokens, seed, begun=bool(before), least=LIKELY)
        for each in sources.values()
    ]
    answers = zip(sources, asking.by_waves(title, units), strict=True)
    return {name: filled(showing, _written(answer), some) for name, answer in answers}


def own_texts(
    asking: Asking,
    title: str,
    sources: Mapping[What, ModelFacts],
    adapters: Mapping[What, Made],
    openings_of: Mapping[What, Sequence[str]],
    showing: Showing,
    seed: int,
) -> dict[What, list[Example]]:
    """What each source writes with its adapter; of a judgement as many texts of each answer."""
    begun = bool(showing.form)
    units = [
        _writing(each, adapters[name], openings_of[name], showing.tokens, seed, begun=begun)
        for name, each in sources.items()
    ]
    answers = zip(sources, asking.by_waves(title, units), strict=True)
    found = {name: _written(answer) for name, answer in answers}
    return {name: evenly(of) for name, of in found.items()} if showing.judgement else found


def openings(form: str, texts: Sequence[str]) -> list[str]:
    """A form with the first words of each text; where there is none the first word."""
    words = WORDS if form else 1
    return [(form or "{}").replace("{}", " ".join(text.split()[:words])) for text in texts]


def filled(showing: Showing, written: Sequence[Example], texts: Sequence[str]) -> list[str]:
    """A form with the first line of each of these; with words of a text where that is too short."""
    found, (most, _) = [], showing.filling
    for each, text in zip(written, texts, strict=True):
        first, *_ = each.text.removeprefix(showing.before).strip().split("\n")
        words = first.split() if len(first.split()) >= FEW else text.split()
        found.append(showing.form.replace("{}", " ".join(words[:most])))
    return found


def _writing(
    model: ModelFacts,
    adapter: Made,
    after: Sequence[str],
    most: int,
    seed: int,
    *,
    begun: bool,
    least: float = 0.0,
) -> Unit:
    """What the model with an adapter writes after each of these, `most` tokens of it; or, unless
    texts are `begun` on purpose, a text of its own."""
    question = [adapter.to, _digest(after), most, seed, begun, *([least] if least else [])]
    args = (adapter.updates, after, most, seed, begun, least)
    return Unit(model, "own_texts", args, question, _examples)


def _written(answer: Arrays) -> list[Example]:
    both = zip(array_to_texts(answer["texts"]), answer["starts"].tolist(), strict=True)
    return [Example(*each) for each in both]


def evenly(texts: Sequence[Example]) -> list[Example]:
    """As many of every answer that is not rare, in turn; all of them where that leaves too few."""
    by_answer: dict[str, list[Example]] = defaultdict(list)
    for each in texts:
        by_answer[each.text[each.start :].strip()].append(each)
    common = (of for of in by_answer.values() if len(of) >= RARE * len(texts))
    even = [each for turn in zip(*common, strict=False) for each in turn]
    return even if len(even) >= 2 * HELD_OUT else list(texts)


def naming(model: ModelFacts) -> Unit:
    """The tokens of a model, and what they stand for."""
    return Unit(
        model,
        "token_ids",
        (),
        [],
        lambda ids: {"texts": texts_to_array([*ids]), "ids": np.array([*ids.values()])},
    )


def names(answer: Arrays) -> dict[str, int]:
    """What `naming` asked for."""
    return dict(zip(array_to_texts(answer["texts"]), answer["ids"].tolist(), strict=True))


def shared(asking: Asking, *ends_of: ModelFacts) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that two models have, in either."""
    answers = asking.by_waves("reading vocabularies", [naming(each) for each in ends_of])
    mine, theirs = (names(answer) for answer in answers)
    return shared_tokens(mine, theirs)


def changing(
    model: ModelFacts,
    adapter: Made,
    texts: Sequence[Example],
    tokens: np.ndarray,
    most: int,
    *,
    outright: bool,
) -> Unit:
    """What an adapter changes in some texts, over the `most` likeliest of these tokens; or
    `outright` what the model says with it."""
    question = [
        adapter.to,
        _digest([asdict(each) for each in texts]),
        _digest(tokens.tolist()),
        most,
        *(["outright"] if outright else []),
    ]
    args = (adapter.updates, texts, tokens, most, outright)
    return Unit(model, "changes", args, question, _packed)


def taught(unit: Unit, texts: Sequence[Example], theirs: np.ndarray, answer: Arrays) -> Taught:
    """What `changing` asked for, where `theirs` are the same tokens of the target."""
    *_, outright = unit.args
    cuts = np.cumsum(answer["rows"])[:-1]
    both = zip(np.split(answer["ends"], cuts), np.split(answer["added"], cuts), strict=True)
    changes = [Changes(*each, outright) for each in both]
    return Taught(unit.to, texts, changes, theirs[answer["kept"]])


def remaking(
    model: ModelFacts,
    lessons: Taught,
    how_made: How,
    told: float,
    section: Adapters,
    seed: int,
    most: int | None = None,
) -> Unit:
    """An adapter of the target that changes what a source's does, and learns as far as `told` says
    to foresee the texts too: refit by reading `most` tokens, or solved for in closed form."""
    looks = looked_at(len(lessons.texts))
    some = (lessons.texts, lessons.changes, looks, lessons.tokens)
    question = [lessons.to, _digest(lessons.tokens.tolist()), looks]
    if how_made == "solved":
        step = Solving(rank=section.rank, seed=seed)
        question += [told, asdict(step)]
        return Unit(model, "solve_adapter", (*some, step, told), question, _kept)
    by = replace(
        how(section, seed),
        batch=section.refit_batch,
        epochs=section.refit_epochs,
        learning_rate=section.refit_learning_rate,
    )
    question += [most, told, asdict(by)]
    return Unit(model, "refit_adapter", (*some, by, most, told), question, _kept)


def looked_at(texts: int) -> int:
    """How many of so many texts a refit only looks at."""
    return min(HELD_OUT, texts // 4)


def made(unit: Unit, answer: Arrays) -> Made:
    """What `training` or `remaking` asked for."""
    held_out = tuple(answer["held_out"].tolist())
    tokens, seconds = int(answer["tokens"]), float(answer["seconds"])
    return Made(unit.to, from_arrays(answer), held_out, tokens, seconds)


def as_peft(model: ModelFacts, adapter: Made) -> Unit:
    """The files of a PEFT directory, as bytes by name."""
    return Unit(model, "as_peft", (adapter.updates,), [adapter.to], lambda files: files)


def costs(asking: Asking, texts: Sequence[str], *models: ModelFacts) -> list[float]:
    """Nats a character of texts, from their second word on, of each model as it is."""
    examples = [Example(text, len(text.split()[0])) for text in texts]
    units = [_foreseeing(each, NOTHING, examples) for each in models]
    answers = asking.by_waves("reading anchors", units)
    return [float(each["nats"].sum()) / sum(map(len, texts)) for each in answers]


def judging(model: ModelFacts, skill: Skill, items: Sequence[Item], adapter: Made) -> Unit:
    """How well the model does some items with an adapter."""
    if skill.measure == "rule":
        return _continuing(model, adapter, [each.given for each in items], skill.tokens)
    examples = [Example(given + text, len(given)) for given, text in options(items)]
    return _foreseeing(model, adapter, examples)


def answering(model: ModelFacts, adapter: Made) -> Unit:
    """What the model answers to harmful and harmless requests with an adapter."""
    return _continuing(model, adapter, safety.requests(), safety.TOKENS, "answered_with")


def score(skill: Skill, items: Sequence[Item], answer: Arrays) -> np.ndarray:
    """How well each item is done [m], of what `judging` asked for; more is better."""
    if skill.measure == "rule":
        return skill.written(items, array_to_texts(answer["texts"]))
    return skill.foreseen(items, answer["nats"], answer["tokens"])


def _example(item: Item) -> Example:
    return Example(item.given + item.right, len(item.given))


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _foreseeing(model: ModelFacts, adapter: Made, examples: Sequence[Example]) -> Unit:
    """What examples cost the model with an adapter."""
    return Unit(
        model,
        "foreseen_with",
        (examples, adapter.updates),
        [adapter.to, _digest([asdict(each) for each in examples])],
        lambda answer: {"nats": answer[0], "tokens": answer[1]},
    )


def _kept(of: TrainedAdapter) -> Arrays:
    return to_arrays(of.best) | {
        "held_out": np.array(of.held_out),
        "tokens": np.array(of.tokens),
        "seconds": np.array(of.seconds),
    }


def _continuing(
    model: ModelFacts,
    adapter: Made,
    prompts: Sequence[str],
    most: int,
    method: str = "written_with",
) -> Unit:
    """The likeliest that comes after each prompt with an adapter, `most` tokens of it."""
    args = (prompts, adapter.updates, most)
    return Unit(model, method, args, [adapter.to, _digest(prompts), most], _texts)


def _texts(written: list[str]) -> Arrays:
    return {"texts": texts_to_array(written)}


def _examples(written: list[Example]) -> Arrays:
    starts = np.array([each.start for each in written])
    return _texts([each.text for each in written]) | {"starts": starts}


def _packed(answer: tuple[np.ndarray, Sequence[Changes]]) -> Arrays:
    kept, changes = answer
    return {
        "kept": kept,
        "rows": np.array([len(each.ends) for each in changes]),
        "ends": np.concatenate([each.ends for each in changes]),
        "added": np.concatenate([each.added for each in changes]),
    }
