"""Steering vectors sent through other models, beside the direct way, and measured on test.

A leg is the map between two models at the place at which the last one is steered. What a leg keeps
is known from dev, where every place was tried. The best path, the shared hub and a middle drawn by
chance are judged on the same prompts as the direct way; so is the best path with legs that were
each fitted to a part of the anchors of its own, so that all of it has seen no more than the direct
map has.

Shapes: p prompts.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

from actors.catalog import ModelFacts
from actors.folder import FitOrder
from alignment.routes import Path
from evaluation.suites import SUITES
from jobs.config import RunFile
from jobs.extract import Vectors
from jobs.fitting import Fitting
from jobs.paths import BEST, CHANCE, HUB, Paths, Routed, Saving
from jobs.questions import Push, Questions, slopes
from jobs.steer import Judged
from jobs.texts import Texts
from jobs.units import Asking
from jobs.ways import HopKey, Ways, key_of, vector_files
from jobs.work import Hop, Place, Work, on_shards

SAME_ROWS = "best path, each leg on its part of the anchors"
ROUTED = (BEST, SAME_ROWS, HUB, CHANCE)


def measure_routes(
    run: RunFile,
    texts: Texts,
    work: Work,
    models: Mapping[str, ModelFacts],
    vectors: Vectors,
    judged: Sequence[Judged],
    asking: Asking,
    fitting: Fitting,
) -> list[Routed]:
    """A route for every pair that was judged and has one; nothing where a run looks for none."""
    if run.routes is None or run.steering is None:
        return []
    found = []
    for concept in run.steers.concepts:
        ways = Ways(concept.name, work, models, vectors, fitting.store)
        of = [each for each in judged if each.concept == concept.name]
        questions = Questions(models, SUITES[concept.suite])
        routing = _Routing(run, work, ways, of)
        found += routing.measured(texts.prompts[concept.name].test, questions, asking, fitting)
    return found


class _Routing:
    """The paths of one concept."""

    def __init__(self, run: RunFile, work: Work, ways: Ways, judged: Sequence[Judged]) -> None:
        self._ways, self._judged, self._draws = ways, judged, run.steers.bootstrap_draws
        self._hops: dict[HopKey, Hop] = {key_of(hop): hop for hop in work.hops}
        kept = _kept(judged, self._draws, run.seed)
        self._paths = {place: Paths(run, of) for place, of in kept.items()}

    def measured(
        self, prompts: Sequence[str], questions: Questions, asking: Asking, fitting: Fitting
    ) -> list[Routed]:
        """Every pair's path, judged on prompts."""
        paths = [(each, path) for each in self._judged if (path := self._best(each)) is not None]
        parts = [self._parts(each.choice.hop.place, path) for each, path in paths]
        fitting.complete(
            f"{self._ways.concept}: fitting legs to parts of the anchors",
            [order for of in parts for order in of],
        )
        pushes = [
            self._pushes(each, path, [order.maps[0][1] for order in of])
            for (each, path), of in zip(paths, parts, strict=True)
        ]
        units = [
            questions.propensity(each.key[1], [*of.values()], (each.choice.strength,), prompts)
            for (each, _), of in zip(paths, pushes, strict=True)
        ]
        answers = asking.by_waves(f"{self._ways.concept}: measuring routes on test", units)
        return [
            Routed(
                each.key,
                path,
                each.native,
                each.ways[each.choice.way.name],
                dict(zip(of, slopes(answer, (each.choice.strength,))[:, 0], strict=True)),
                self._draws,
                self._saving(each, path, of[BEST]),
            )
            for (each, path), of, answer in zip(paths, pushes, answers, strict=True)
        ]

    def _saving(self, judged: Judged, path: Path, push: Push) -> Saving | None:
        legs = self._legs(judged.choice.hop.place, path.nodes)
        at_once = self._ways.at_once([self._ways.best_fitted(leg).map_address for leg in legs])
        vector = push.at(judged.choice.strength).vector
        if at_once is None:
            return None
        return partial(vector_files, carried_by=at_once, vector=vector)

    def _best(self, judged: Judged) -> Path | None:
        hop = judged.choice.hop
        return self._paths[hop.place].best(hop.source, hop.target)

    def _legs(self, place: Place, nodes: Sequence[str]) -> list[Hop]:
        return [self._hops[one, other, place] for one, other in pairwise(nodes)]

    def _parts(self, place: Place, path: Path) -> list[FitOrder]:
        """For each leg, a map that is fitted to its part of the anchors alone."""
        legs = self._legs(place, path.nodes)
        return [
            on_shards(leg, self._ways.best_fitted(leg).name, number, len(legs))
            for number, leg in enumerate(legs)
        ]

    def _pushes(self, judged: Judged, path: Path, parts: Sequence[str]) -> dict[str, Push]:
        """What is added to the target, by the way that it went."""
        hop = judged.choice.hop
        pushes = {BEST: self._along(hop, path.nodes)}
        pushes[SAME_ROWS] = self._ways.along(self._legs(hop.place, path.nodes), parts)
        others = self._paths[hop.place].others(hop.source, hop.target)
        return pushes | {name: self._along(hop, nodes) for name, nodes in others.items()}

    def _along(self, hop: Hop, nodes: Sequence[str]) -> Push:
        legs = self._legs(hop.place, nodes)
        return self._ways.along(legs, [self._ways.best_fitted(leg).map_address for leg in legs])


def _kept(
    judged: Sequence[Judged], draws: int, seed: int
) -> Mapping[Place, Mapping[tuple[str, str], float]]:
    """At every place, what of the native effect is kept on dev between each two models. Where the
    native vector does no more there than chance, nothing is."""
    found: dict[Place, dict[tuple[str, str], float]] = {}
    for each in judged:
        for visited in each.choice.visited:
            of, hop = visited.kept(draws, seed), visited.hop
            share = 0.0 if of is None else of.value
            found.setdefault(hop.place, {})[hop.source, hop.target] = share
    return found
