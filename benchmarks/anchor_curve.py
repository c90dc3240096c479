"""How good each fitter's map is with few and with many anchor rows.

Between the two models of configs/demo.yaml, in both directions, at the representation role. The
texts are those of configs/steering.yaml. For each number of rows, every fitter is fitted to the
first so many, and judged by R² on other texts' rows and by what survives of sentiment and
formality vectors: retention of the slope on test prompts, with a 95 % interval.

    python -m benchmarks.anchor_curve

Shapes: n rows, ds source width, dt target width, p prompts.
"""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch

from actors.anchors import AnchorBatch, batches
from actors.cargo.steering import carry
from actors.catalog import ModelFacts
from actors.exchange import Activations, shared_rows
from actors.host import ModelHost
from actors.weights import default_cache
from alignment.directions import DIRECTIONS
from alignment.fitted import FitError
from alignment.fitters import FITTERS
from alignment.maps import Map
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows
from benchmarks.record import record
from evaluation.retention import Interval, measure_retention
from evaluation.suites import SUITES
from jobs.config import RunFile, read_run_file
from jobs.names import ROOT
from jobs.questions import SIGNS, Push, slopes
from jobs.texts import Texts, gather
from jobs.work import Place, site_of

COUNTS = (300, 1_000, 3_000, 10_000, 30_000, 50_000)
HELD_ROWS = 4_000
SAMPLE_ROWS = 4_096  # of them, for fitters that learn from rows
FOLDS = 4
PLACE = Place("residual", "representation")
CONCEPTS = ("sentiment", "formality")
STRENGTH = 0.1


@dataclass(frozen=True, eq=False)
class Model:
    """A live model, what it holds at the anchors, and its vectors by concept."""

    host: ModelHost
    facts: ModelFacts
    site: str
    read: list[Activations]
    vectors: dict[str, np.ndarray]


def main() -> None:
    """Measure and record."""
    run = run_of(CONCEPTS)
    # About 75 word ends a text; what is over is not used.
    anchors = run.anchors.model_copy(update={"texts": (max(COUNTS) + HELD_ROWS) // 60})
    run = run.model_copy(update={"anchors": anchors})
    texts = gather(run)
    models = [read_model(run, texts, number) for number in range(2)]
    curves = {}
    for source, target in permutations(models, 2):
        name = f"{source.facts.name} -> {target.facts.name}"
        curves[name] = list(_curve(texts, source, target))
    record(
        "anchor_curve",
        {
            "asked": "300 to 50,000 rows, each fitter",
            "place": str(PLACE),
            "strength": STRENGTH,
            "held_rows": HELD_ROWS,
            "curves": curves,
        },
    )


def run_of(concepts: Collection[str]) -> RunFile:
    """The two models of the demo with texts and concepts of the fleet's run."""
    steering = read_run_file(ROOT / "configs/steering.yaml")
    demo = read_run_file(ROOT / "configs/demo.yaml")
    chosen = tuple(each for each in steering.steers.concepts if each.name in concepts)
    some = steering.steers.model_copy(update={"concepts": chosen})
    return steering.model_copy(update={"models": demo.models, "steering": some})


def read_model(run: RunFile, texts: Texts, number: int) -> Model:
    """One of the models of a run, read at all of its anchors."""
    torch.set_num_threads(2)
    host = ModelHost(run.models[number], default_cache(), threads=2)
    facts = host.facts()
    site = site_of(PLACE, facts)
    started = time.monotonic()
    shards = batches(texts.anchors, shard_texts=64, batch_texts=8)
    read = [host.activations(batch, (site,)) for batch in _in_turn(shards)]
    print(f"{facts.name}: read in {time.monotonic() - started:.0f} s", file=sys.stderr)
    vectors = {}
    for name, sides in texts.sides.items():
        points = host.pooled((*sides.positive, *sides.negative), (site,), sides.first_words)[site]
        cut = len(sides.positive)
        vectors[name] = DIRECTIONS["difference_of_means"]().direction(points[:cut], points[cut:])
    return Model(host, facts, site, read, vectors)


def _in_turn(shards: Sequence[Sequence[AnchorBatch]]) -> Iterator[AnchorBatch]:
    return (batch for shard in shards for batch in shard)


def _curve(texts: Texts, source: Model, target: Model) -> Iterator[dict[str, Any]]:
    x, y = rows_of_both(source, target)
    spread = float(np.median(y.std(0)) * y.shape[1] ** 0.5)
    held = x[-HELD_ROWS:], y[-HELD_ROWS:]
    native = {name: _slopes(texts, name, target, target.vectors[name], spread) for name in CONCEPTS}
    for count in COUNTS:
        if count + HELD_ROWS > len(x):
            print(f"only {len(x)} rows", file=sys.stderr)
            return
        some_x, some_y = torch.from_numpy(x[:count]), torch.from_numpy(y[:count])
        folds = np.arange(count) * FOLDS // count  # in blocks: folds share no text, but at an edge
        moments = FoldedMoments.of_rows(some_x, some_y, folds, FOLDS)
        thin = np.linspace(0, count - 1, min(count, SAMPLE_ROWS)).astype(int)
        rows = FoldedRows.of_rows(some_x[thin], some_y[thin], folds[thin], FOLDS)
        fitters: dict[str, dict[str, Any]] = {}
        for name in FITTERS:
            recipe = FITTERS[name]()
            # Both models are dense: no router has anything to tell.
            if recipe.needs_routes or not recipe.applies(x.shape[1], y.shape[1]):
                continue
            started = time.monotonic()
            try:
                found = recipe.fit(moments, rows)
            except FitError as error:
                fitters[name] = {"refused": str(error)}
                continue
            seconds = time.monotonic() - started
            fitters[name] = {
                "r2": _r2(found.map, *held),
                "fit_seconds": round(seconds, 2),
                "retention": {
                    concept: _retention(texts, concept, source, target, found.map, spread, native)
                    for concept in CONCEPTS
                },
            }
            print(source.facts.name, count, name, fitters[name], file=sys.stderr)
        yield {"rows": count, "fitters": fitters}


def rows_of_both(source: Model, target: Model) -> tuple[np.ndarray, np.ndarray]:
    """All rows that both models have [n, ds], [n, dt]."""
    pairs = []
    for one, other in zip(source.read, target.read, strict=True):
        at, to = shared_rows(one, other)
        pairs.append((one.points[source.site][at], other.points[target.site][to]))
    xs, ys = zip(*pairs, strict=True)
    return np.concatenate(xs), np.concatenate(ys)


def _r2(fitted: Map, x: np.ndarray, y: np.ndarray) -> float:
    predicted = fitted.transform(torch.from_numpy(x)).numpy()
    return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def _slopes(
    texts: Texts, concept: str, target: Model, direction: np.ndarray, spread: float
) -> np.ndarray:
    """Slopes [p] of the propensity on test prompts."""
    push, suite = Push(target.site, direction, spread), SUITES[concept]
    injections = [push.at(sign * STRENGTH) for sign in SIGNS]
    odds = target.host.next_word_log_odds(
        texts.prompts[concept].test, suite.positive, suite.negative, injections
    )
    return slopes({"answer": odds}, (STRENGTH,))[0, 0]


def _retention(
    texts: Texts,
    concept: str,
    source: Model,
    target: Model,
    fitted: Map,
    spread: float,
    native: dict[str, np.ndarray],
) -> list[float] | None:
    """Value, low, high."""
    direction = carry(source.vectors[concept], fitted)
    carried = _slopes(texts, concept, target, direction, spread)
    measured = measure_retention(np.zeros_like(carried), native[concept], carried)
    return _plain(measured.retention)


def _plain(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.value, interval.low, interval.high]


if __name__ == "__main__":
    main()
