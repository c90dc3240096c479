"""Every text of a run, each used for one thing only."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from actors.anchors import AnchorError, check_disjoint, split, text_hash
from actors.corpora import CorpusSpec, read_texts
from evaluation.suite import Suite
from jobs.config import Contrast, RunFile

# What becomes of the texts of the anchor corpora, and of the openings of a suite.
_CORPUS_PARTS = {"anchors": 8, "neutral-dev": 1, "neutral-test": 1}
_PROMPT_PARTS = {"dev": 1, "test": 2}


@dataclass(frozen=True)
class Sides:
    """The texts that a concept is extracted from."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """Disjoint by hash, and checked: map fitting, cargo, dev and test share no text."""

    anchors: list[str]
    neutral_dev: tuple[str, ...]
    neutral_test: tuple[str, ...]
    concept: Sides
    other: Sides
    prompts_dev: tuple[str, ...]
    prompts_test: tuple[str, ...]


def gather(run: RunFile, suite: Suite) -> Texts:
    """Read and share out every text of a run.

    Raises:
        CorpusError: a corpus cannot be read.
        AnchorError: there are fewer texts than are asked for, or two uses share one.
    """
    corpora = chain.from_iterable(read_texts(corpus) for corpus in run.anchors.corpora)
    parts = split(corpora, _CORPUS_PARTS)
    prompts = split(suite.prompts, _PROMPT_PARTS)
    texts = Texts(
        anchors=_first("anchors.texts", parts["anchors"], run.anchors.texts),
        neutral_dev=_neutral(run, parts["neutral-dev"]),
        neutral_test=_neutral(run, parts["neutral-test"]),
        concept=_sides("steering.concept", run.steering.concept),
        other=_sides("steering.other", run.steering.other),
        prompts_dev=tuple(prompts["dev"]),
        prompts_test=tuple(prompts["test"]),
    )
    check_disjoint(_uses(texts, suite))
    return texts


def _neutral(run: RunFile, texts: list[str]) -> tuple[str, ...]:
    chosen = _first("steering.neutral_texts", texts, run.steering.neutral_texts)
    return tuple(" ".join(text.split()[: run.steering.neutral_words]) for text in chosen)


def _uses(texts: Texts, suite: Suite) -> Mapping[str, tuple[str, ...] | list[str]]:
    return {
        "anchors": texts.anchors,
        "neutral-dev": texts.neutral_dev,
        "neutral-test": texts.neutral_test,
        "concept-positive": texts.concept.positive,
        "concept-negative": texts.concept.negative,
        "other-positive": texts.other.positive,
        "other-negative": texts.other.negative,
        "prompts-dev": texts.prompts_dev,
        "prompts-test": texts.prompts_test,
        "samples": suite.samples,
    }


def _sides(place: str, contrast: Contrast) -> Sides:
    return Sides(
        *(
            tuple(_first(f"{place}.{side}", _distinct(spec), contrast.texts))
            for side, spec in (("positive", contrast.positive), ("negative", contrast.negative))
        )
    )


def _distinct(spec: CorpusSpec) -> list[str]:
    return split(read_texts(spec), {"all": 1})["all"]


def _first(place: str, texts: list[str], count: int) -> list[str]:
    """The `count` texts that come first by hash: the same ones whatever else a corpus holds."""
    if len(texts) < count:
        raise AnchorError(f"{place}: {count} texts are asked for, the corpus has {len(texts)}")
    return sorted(texts, key=text_hash)[:count]
