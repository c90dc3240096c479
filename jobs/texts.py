"""Every text of a run, each used for one thing only."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from actors.anchors import AnchorError, check_disjoint, split, text_hash
from actors.corpora import CorpusSpec, read_texts
from alignment.directions import DIRECTIONS
from evaluation.skill import Items
from evaluation.skills import SKILLS
from evaluation.suite import Suite
from evaluation.suites import SUITES
from jobs.config import RunFile
from jobs.passages import Passages, passages
from jobs.sections import Contrast, Group, Steering

# What becomes of the texts of the anchor corpora, and of the openings of a suite.
_CORPUS_PARTS = {"anchors": 8, "neutral-dev": 1, "neutral-test": 1}
_PROMPT_PARTS = {"dev": 1, "test": 2}


@dataclass(frozen=True)
class Sides:
    """The texts that a concept is extracted from; of a `paired` one, row by row.

    `first_words` are the numbers of the words from which on the positive texts count, then the
    negative ones. `groups` has the name of the group of each positive text, and of the negative
    one in its place; it is empty where there are no groups.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    paired: bool
    first_words: tuple[int, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Prompts:
    """The openings of a suite, and those that people read the going on of."""

    dev: tuple[str, ...]
    test: tuple[str, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """Disjoint by hash, and checked: map fitting, cargo, dev and test share no text.

    `sides` and `prompts` are by concept; concepts may share texts with each other. `passages` are
    those that caches are read of, where caches are carried; `items` are by skill, where adapters
    are.
    """

    anchors: list[str]
    neutral_dev: tuple[str, ...]
    neutral_test: tuple[str, ...]
    sides: dict[str, Sides]
    prompts: dict[str, Prompts]
    passages: Passages | None
    items: dict[str, Items]


def gather(run: RunFile) -> Texts:
    """Read and share out every text of a run.

    Raises:
        CorpusError: a corpus cannot be read.
        AnchorError: there are fewer texts than are asked for, or two uses share one.
    """
    corpora = chain.from_iterable(read_texts(corpus) for corpus in run.anchors.corpora)
    parts = split(corpora, _CORPUS_PARTS)
    anchors = _first("anchors.texts", parts["anchors"], run.anchors.texts, run.seed)
    of_caches = None if run.kv_cache is None else passages(run.kv_cache, run.seed)
    items = _items(run, anchors)
    steering = run.steering
    if steering is None:
        return Texts(anchors, (), (), {}, {}, of_caches, items)
    _require_pairs(steering)
    texts = Texts(
        anchors=anchors,
        neutral_dev=_neutral(steering, parts["neutral-dev"]),
        neutral_test=_neutral(steering, parts["neutral-test"]),
        passages=of_caches,
        items=items,
        sides={each.name: _sides(each, run.seed) for each in steering.contrasts},
        prompts={each.name: _prompts(SUITES[each.suite]) for each in steering.concepts},
    )
    for concept in steering.concepts:
        check_disjoint(_uses(texts, concept.name, steering.other_than(concept.name)))
    return texts


def _items(run: RunFile, anchors: list[str]) -> dict[str, Items]:
    """The items of every skill, which share nothing with each other or with the anchors."""
    taught = [each.skills for each in (run.lora, run.soft_prompt) if each is not None]
    found = {name: SKILLS[name].read() for name in dict.fromkeys(chain.from_iterable(taught))}
    for name, of in found.items():
        parts = {"lessons": of.lessons, "held": of.held, "test": of.test}
        texts = {
            f"{name}-{part}": [each.given + each.right for each in some]
            for part, some in parts.items()
        }
        check_disjoint({"anchors": anchors, **texts})
    return found


def _require_pairs(steering: Steering) -> None:
    if not DIRECTIONS[steering.direction].needs_pairs:
        return
    without = ", ".join(name for name, each in DIRECTIONS.items() if not each.needs_pairs)
    for contrast in steering.contrasts:
        if not contrast.paired:
            raise AnchorError(
                f"{contrast.name} is not paired, and {steering.direction} needs pairs; allowed "
                f"without pairs: {without}"
            )


def _prompts(suite: Suite) -> Prompts:
    parts = split(suite.prompts, _PROMPT_PARTS)
    return Prompts(tuple(parts["dev"]), tuple(parts["test"]), suite.samples)


def _neutral(steering: Steering, texts: list[str]) -> tuple[str, ...]:
    chosen = _first("steering.neutral_texts", texts, steering.neutral_texts)
    return tuple(" ".join(text.split()[: steering.neutral_words]) for text in chosen)


def _uses(texts: Texts, concept: str, other: str) -> Mapping[str, tuple[str, ...] | list[str]]:
    prompts = texts.prompts[concept]
    return {
        "anchors": texts.anchors,
        "neutral-dev": texts.neutral_dev,
        "neutral-test": texts.neutral_test,
        f"{concept}-positive": texts.sides[concept].positive,
        f"{concept}-negative": texts.sides[concept].negative,
        f"{other}-positive": texts.sides[other].positive,
        f"{other}-negative": texts.sides[other].negative,
        "prompts-dev": prompts.dev,
        "prompts-test": prompts.test,
        "samples": prompts.samples,
    }


def _sides(contrast: Contrast, seed: int) -> Sides:
    by_group = {
        place: _both(place, contrast, sides, seed) for place, sides in contrast.by_group.items()
    }
    for number, side in enumerate(("positive", "negative")):
        check_disjoint({f"{place}-{side}": both[number] for place, both in by_group.items()})
    positive, negative = (
        tuple(chain.from_iterable(both[number] for both in by_group.values())) for number in (0, 1)
    )
    parting = [0] * 2 * len(positive)
    if contrast.paired:
        parting = [_parting(*pair) for pair in zip(positive, negative, strict=True)] * 2
    if contrast.pool == "last_word":
        parting = [len(text.split()) - 1 for text in (*positive, *negative)]
    groups = tuple(name for name in contrast.groups for _ in range(contrast.texts))
    return Sides(positive, negative, contrast.paired, tuple(parting), groups)


def _both(place: str, contrast: Contrast, sides: Group, seed: int) -> tuple[list[str], list[str]]:
    """As many texts of either side as the concept asks for."""
    if contrast.paired:
        pairs = _pairs(place, sides, contrast.texts, seed)
        return [one for one, _ in pairs], [other for _, other in pairs]
    positive, negative = (
        _first(f"{place}.{side}", _distinct(spec), contrast.texts, seed)
        for side, spec in (("positive", sides.positive), ("negative", sides.negative))
    )
    return positive, negative


def _pairs(place: str, of: Group, count: int, seed: int) -> list[tuple[str, str]]:
    sides = [list(read_texts(spec)) for spec in (of.positive, of.negative)]
    counts = [len(side) for side in sides]
    if counts[0] != counts[1]:
        raise AnchorError(
            f"{place}: {counts[0]} positive and {counts[1]} negative texts are no pairs"
        )
    partner = dict(reversed([pair for pair in zip(*sides, strict=True) if pair[0] != pair[1]]))
    distinct = split(partner, {"all": 1})["all"]
    chosen = _first(f"{place}, pairs", distinct, count, seed)
    return [(text, partner[text]) for text in chosen]


def _parting(one: str, other: str) -> int:
    """The number of the first word that is not the same in both."""
    words = list(zip(one.split(), other.split(), strict=False))
    return next((n for n, (a, b) in enumerate(words) if a != b), len(words))


def _distinct(spec: CorpusSpec) -> list[str]:
    return split(read_texts(spec), {"all": 1})["all"]


def _first(place: str, texts: list[str], count: int, seed: int = 0) -> list[str]:
    """The `count` texts that come first by hash: the same ones whatever else a corpus holds.

    Each seed draws others, so that a run with another seed is another sample.
    """
    if len(texts) < count:
        raise AnchorError(f"{place}: {count} texts are asked for, the corpus has {len(texts)}")
    salt = f"{seed} " if seed else ""
    return sorted(texts, key=lambda text: text_hash(salt + text))[:count]
