"""Do maps carry better between languages if they are fitted on both, or centred by language?

The two models of configs/demo.yaml, in both directions, at the representation role. The texts are
Chinese sentences with their English translations, of the package hsk-sentences-audio (4,354 pairs,
CC-BY-SA-4.0). Chinese has no spaces, so each sentence is one row: its last token, the final mark
left out. Ridge maps are fitted on English, on Chinese, on both, on both with half as many sentences
of each (as many rows as of one language), and on both with each language centred about its own
mean. Each is judged on held-out pairs by R² about the mean of the language, and by the cosine of
carried and native directions of three concepts that both languages tell apart, from further pairs.
Intervals are 95 % of a bootstrap over pairs.

    python -m benchmarks.cross_lingual

Shapes: n rows, ds source width, dt target width, b draws.
"""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch

from actors.anchors import text_hash
from actors.catalog import ModelSpec
from actors.corpora import CorpusSpec, read_texts
from actors.host import ModelHost
from actors.weights import default_cache
from alignment.fitters.ridge import Ridge
from alignment.moments import FoldedMoments
from benchmarks.record import record
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.work import Place, site_of

FILE = "hsk_sentences_audio/data/sentences.json"
FIELDS = {"en": "translation.en", "zh": "chinese"}
FIT, HELD, SIDE = 1_500, 400, 120
LEAST_WORDS, LEAST_CHARACTERS = 3, 4  # the final mark counted
FOLDS, DRAWS = 4, 1_000
BESIDE = ("English", "both")  # ways that the others are taken less of
PLACE = Place("residual", "representation")
NEGATED = {"en": re.compile(r"\b(not|no|never|nothing|nobody)\b|n't"), "zh": re.compile("[不没]")}
MARKS = ".!?…。！？"

Interval = list[float]  # value, low, high


@dataclass(frozen=True)
class Pair:
    """A sentence in both languages, as it is, and what it is about."""

    texts: dict[str, str]
    topic: str

    def is_question(self) -> bool | None:
        return self._agreed(lambda _, text: text[-1] in "?？")

    def is_negated(self) -> bool | None:
        return self._agreed(lambda language, text: bool(NEGATED[language].search(text.lower())))

    def is_of_feelings(self) -> bool | None:
        return {"feelings": True, "objects_misc": False}.get(self.topic)

    def _agreed(self, holds: Callable[[str, str], bool]) -> bool | None:
        """What both languages say, None where they differ."""
        said = {holds(language, text) for language, text in self.texts.items()}
        return said.pop() if len(said) == 1 else None


CONCEPTS: dict[str, Callable[[Pair], bool | None]] = {
    "question": Pair.is_question,
    "negation": Pair.is_negated,
    "feelings against objects": Pair.is_of_feelings,
}


@dataclass(frozen=True)
class Shares:
    """Disjoint pairs: to fit on, to judge by R², and the sides of each concept, as long."""

    fit: list[Pair]
    held: list[Pair]
    concepts: dict[str, tuple[list[Pair], list[Pair]]]


@dataclass(frozen=True, eq=False)
class Rows:
    """What one model holds, by language: [n, d]."""

    name: str
    fit: dict[str, np.ndarray]
    held: dict[str, np.ndarray]
    concepts: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True, eq=False)
class Way:
    """A map with the means, by language, that its rows are taken about."""

    weight: np.ndarray  # [dt, ds]
    source: dict[str, np.ndarray]
    target: dict[str, np.ndarray]

    def predict(self, language: str, x: np.ndarray) -> np.ndarray:
        return self.target[language] + (x - self.source[language]) @ self.weight.T


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    shares = _shares(_pairs())
    models = [_rows(spec, shares) for spec in read_run_file(ROOT / "configs/demo.yaml").models]
    sizes = {name: len(sides[0]) for name, sides in shares.concepts.items()}
    found = {f"{a.name} -> {b.name}": _judged(a, b) for a, b in permutations(models, 2)}
    record(
        "cross_lingual",
        {
            "asked": "ridge on one language, on both, and on both centred by language",
            "place": str(PLACE),
            "pairs": {"fit": FIT, "held": HELD, "each side of a concept": sizes},
            "draws": DRAWS,
            "found": found,
        },
    )


def _pairs() -> list[Pair]:
    """Every sentence once in each language, in the order of the hash.

    Not the shortest: activations at a first token can be many times as long as any other, and a
    sentence that is one token would outweigh all the rest (arXiv 2402.17762).
    """
    asked = (*FIELDS.values(), "topic")
    columns = [read_texts(CorpusSpec(package=FILE, field=field)) for field in asked]
    known: set[str] = set()
    pairs = []
    for *texts, topic in zip(*columns, strict=True):
        english, chinese = texts
        long = len(english.split()) >= LEAST_WORDS and len(chinese) >= LEAST_CHARACTERS
        if long and known.isdisjoint(texts):
            pairs.append(Pair(dict(zip(FIELDS, texts, strict=True)), topic))
        known.update(texts)
    return sorted(pairs, key=lambda pair: text_hash(pair.texts["en"]))


def _shares(pairs: list[Pair]) -> Shares:
    concepts = {}
    for name, holds in CONCEPTS.items():
        sides = [[pair for pair in pairs if holds(pair) is side] for side in (True, False)]
        count = min(SIDE, *map(len, sides))
        positive, negative = (side[:count] for side in sides)
        concepts[name] = positive, negative
        taken = {id(pair) for pair in (*positive, *negative)}
        pairs = [pair for pair in pairs if id(pair) not in taken]
    return Shares(pairs[:FIT], pairs[FIT : FIT + HELD], concepts)


def _rows(spec: ModelSpec, shares: Shares) -> Rows:
    host = ModelHost(spec, default_cache(), threads=1)
    site = site_of(PLACE, host.facts())
    started = time.monotonic()

    def read(pairs: list[Pair], language: str) -> np.ndarray:
        texts = [pair.texts[language].rstrip(MARKS) for pair in pairs]
        last = [len(text.split()) - 1 for text in texts]
        return host.pooled(texts, (site,), last)[site]

    rows = Rows(
        name=host.facts().name,
        fit={language: read(shares.fit, language) for language in FIELDS},
        held={language: read(shares.held, language) for language in FIELDS},
        concepts={
            name: {
                language: (read(sides[0], language), read(sides[1], language))
                for language in FIELDS
            }
            for name, sides in shares.concepts.items()
        },
    )
    print(f"{rows.name}: read in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows


def _judged(source: Rows, target: Rows) -> dict[str, Any]:
    ways = _ways(source, target)
    found: dict[str, Any] = {name: {} for name in ways}
    for language in FIELDS:
        generator = np.random.default_rng(0)
        weights = generator.multinomial(HELD, np.full(HELD, 1 / HELD), DRAWS)
        held = source.held[language], target.held[language]
        drawn = {name: _r2(way, language, *held, weights) for name, way in ways.items()}
        _put(found, f"r2 {language}", drawn)
        for concept in CONCEPTS:
            sides = source.concepts[concept][language], target.concepts[concept][language]
            ends = [_directions(each) for each in sides]
            drawn = {name: _cosines(ends[0] @ way.weight.T, ends[1]) for name, way in ways.items()}
            _put(found, f"cosine {language}, {concept}", drawn)
    return found


def _put(found: dict[str, Any], key: str, drawn: dict[str, np.ndarray]) -> None:
    """Intervals of each way, and of its difference from others, draw by draw."""
    for name, values in drawn.items():
        found[name][key] = _interval(values)
        for other in BESIDE:
            if other != name:
                found[name][f"{key}, less {other}"] = _interval(values - drawn[other])


def _ways(source: Rows, target: Rows) -> dict[str, Way]:
    half = {"en": slice(0, FIT // 2), "zh": slice(FIT // 2, FIT)}  # no sentence in both languages
    some = [{k: rows.fit[k][half[k]] for k in FIELDS} for rows in (source, target)]
    whole = source.fit, target.fit
    return {
        "English": _pooled(*({"en": rows["en"]} for rows in whole)),
        "Chinese": _pooled(*({"zh": rows["zh"]} for rows in whole)),
        "both, half of each": _pooled(*some),
        "both": _pooled(*whole),
        "both, centred by language": _centred(*whole),
    }


def _pooled(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> Way:
    """A map of all rows, about the mean of all of them."""
    about = [np.concatenate(list(rows.values())).mean(0) for rows in (x, y)]
    source, target = (dict.fromkeys(FIELDS, mean) for mean in about)
    return Way(_ridge(x, y, source, target), source, target)


def _centred(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> Way:
    """A map of all rows, each about the mean of its language."""
    source, target = ({k: rows[k].mean(0) for k in FIELDS} for rows in (x, y))
    return Way(_ridge(x, y, source, target), source, target)


def _ridge(
    x: dict[str, np.ndarray],
    y: dict[str, np.ndarray],
    source: dict[str, np.ndarray],
    target: dict[str, np.ndarray],
) -> np.ndarray:
    """The weight [dt, ds]; a sentence is in the same fold in both languages."""
    from_rows = torch.from_numpy(np.concatenate([x[k] - source[k] for k in x]))
    to_rows = torch.from_numpy(np.concatenate([y[k] - target[k] for k in y]))
    folds = np.concatenate([np.arange(len(rows)) % FOLDS for rows in x.values()])
    found = Ridge().fit(FoldedMoments.of_rows(from_rows, to_rows, folds, FOLDS))
    origin = torch.zeros(1, from_rows.shape[1])
    moved = found.map.transform(torch.cat([origin, torch.eye(from_rows.shape[1])]))
    return (moved[1:] - moved[0]).numpy().T


def _r2(way: Way, language: str, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R² [1 + b] of the rows as they are, then as drawn."""
    counts = np.concatenate([np.ones((1, len(x)), dtype=int), weights])
    wide = y.astype(np.float64)
    wrong = np.square(wide - way.predict(language, x)).sum(1)
    about = wide - wide.mean(0)
    spread = counts @ np.square(about).sum(1) - np.square(counts @ about).sum(1) / len(x)
    return 1 - (counts @ wrong) / spread


def _directions(sides: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Differences of means [1 + b, d] of all pairs, then of drawn ones: the same at both ends."""
    generator = np.random.default_rng(1)
    means = []
    for points in sides:
        count = len(points)
        even = np.full(count, 1 / count)
        drawn = generator.multinomial(count, even, DRAWS) / count
        means.append(np.concatenate([even[None], drawn]) @ points.astype(np.float64))
    return means[0] - means[1]


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def _interval(values: np.ndarray) -> Interval:
    """The first of the values [1 + b], and 95 % of the others."""
    return [float(values[0]), *np.quantile(values[1:], (0.025, 0.975)).tolist()]


if __name__ == "__main__":
    main()
