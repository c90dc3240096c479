"""Maps trained through their targets: what is asked of sources and targets, in which order.

A source is asked what its vectors do to the next word, and its answer is kept. Nothing is asked of
it again when the target is trained, so the two need not be loaded together.

Shapes: n vectors, ds width of the source's site, p prompts to train on, h held out, w words.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from actors.cargo.steering import injection
from actors.catalog import ModelFacts
from actors.training import SIGNS, TrainedMap, Training, TrainOrder
from jobs.units import Arrays, Asking, Unit, digest

_WORDS_FILE = Path(__file__).with_name("words.txt")


@dataclass(frozen=True, eq=False)
class Lesson:
    """One map from a site of the source to one of the target, to be trained by what vectors do.

    Attributes:
        base_map: from which training starts, as `Map.to_bytes` writes it.
        vectors: [n, ds], of several concepts, which are trained together.
        source_spread: unit of strength in the source, as `target_spread` in the target.
        strength: how many units are added, with and against each vector, in both models.
        held_out: prompts that only say when to stop.
        words: by which effects are compared; see `shared_words`.
    """

    source: ModelFacts
    target: ModelFacts
    source_site: str
    target_site: str
    base_map: bytes
    vectors: np.ndarray
    source_spread: float
    target_spread: float
    strength: float
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    words: tuple[str, ...]
    training: Training


def shared_words() -> tuple[str, ...]:
    """Common English words, of which most tokenizers make first tokens that differ."""
    return tuple(_WORDS_FILE.read_text(encoding="utf-8").split())


def teach(asking: Asking, lessons: Sequence[Lesson]) -> list[np.ndarray]:
    """What the vectors do in their sources: log-chances [1 + 2 n, p + h, w] of each lesson.

    The first are of the source as it is, then with and against each vector; -inf for words that
    the source cannot tell apart. Ask while the sources of a wave are loaded.

    Raises:
        WordsError: a source tells fewer than two of the words apart.
        TextError: a prompt that it cannot read as asked.
    """
    units = [_teaching(lesson) for lesson in lessons]
    return [answer["answer"] for answer in asking.by_waves("asking sources", units)]


def trained(asking: Asking, lessons: Sequence[Lesson]) -> list[TrainedMap]:
    """The trained map of each lesson; every answer is kept, and what is kept is not asked again.

    Targets are loaded wave by wave, and so are the sources of lessons of which `teach` has not
    asked yet.

    Raises:
        TrainingError, SiteError: a lesson does not fit together.
        WordsError: source and target tell fewer than two of the words apart.
        ShardingError: the target is held so that no gradients go through it.
    """
    taught = teach(asking, lessons)
    units = [_training(*each) for each in zip(lessons, taught, strict=True)]
    return [_read(answer) for answer in asking.by_waves("training maps", units)]


def _teaching(lesson: Lesson) -> Unit:
    pushed = [
        injection(lesson.source_site, vector, lesson.source_spread, sign * lesson.strength)
        for vector in lesson.vectors
        for sign in SIGNS
    ]
    prompts = (*lesson.prompts, *lesson.held_out)
    question = [
        prompts,
        lesson.words,
        lesson.source_site,
        digest(lesson.vectors),
        lesson.source_spread,
        lesson.strength,
    ]
    args = (prompts, lesson.words, [None, *pushed])
    return Unit(lesson.source, "next_word_chances", args, question)


def _training(lesson: Lesson, taught: np.ndarray) -> Unit:
    told = np.isfinite(taught[0]).all(axis=0)
    plain, *changed = taught[..., told]
    effects = np.stack(changed) - plain
    words = tuple(word for word, apart in zip(lesson.words, told, strict=True) if apart)
    order = TrainOrder(
        base=lesson.base_map,
        site=lesson.target_site,
        vectors=lesson.vectors,
        spread=lesson.target_spread,
        strength=lesson.strength,
        prompts=lesson.prompts,
        held_out=lesson.held_out,
        words=words,
        effects=effects.reshape(len(lesson.vectors), len(SIGNS), *plain.shape),
        training=lesson.training,
    )
    question = [
        hashlib.sha256(order.base).hexdigest(),
        order.site,
        digest(order.vectors),
        order.spread,
        order.strength,
        order.prompts,
        order.held_out,
        order.words,
        digest(order.effects),
        asdict(order.training),
    ]
    return Unit(lesson.target, "train_map", (order,), question, _kept)


def _kept(found: TrainedMap) -> Arrays:
    record = asdict(found)
    weights = record.pop("map")
    return {"map": _bytes(weights), "record": _bytes(json.dumps(record).encode())}


def _read(kept: Arrays) -> TrainedMap:
    record = json.loads(kept["record"].tobytes())
    return TrainedMap(
        map=kept["map"].tobytes(),
        improved=record["improved"],
        held_out=tuple(record["held_out"]),
        losses=tuple(record["losses"]),
        words=tuple(record["words"]),
        seconds=record["seconds"],
    )


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)
