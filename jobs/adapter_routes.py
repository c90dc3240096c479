"""Adapters carried on by other models, beside the direct way, and judged on test.

What a middle has made of an adapter is carried on as if it were its own. Beside the best path, by
what hops keep on held items, stand the shared hub, a middle drawn by chance, and the direct way
once more, by a target that reads as much as all legs of the path together.

Shapes: m items.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from actors.catalog import ModelFacts
from alignment.routes import Path
from evaluation.skills import SKILLS
from evaluation.trained_ways import BASE, NATIVE, Judging
from jobs.adapter_units import Made
from jobs.adapters import Adapted, Adapting, Pair, adapter_files
from jobs.config import RunFile
from jobs.paths import BEST, CHANCE, HUB, Paths, Routed
from jobs.texts import Texts
from jobs.units import Arrays, Asking

SAME_READING = "direct, reading as much"
ROUTED = (BEST, SAME_READING, HUB, CHANCE)
Nodes = tuple[str, ...]


def route_adapters(
    run: RunFile,
    texts: Texts,
    models: Mapping[str, ModelFacts],
    adapted: Sequence[Adapted],
    asking: Asking,
) -> list[Routed]:
    """A route for every pair and skill that has one; nothing where a run looks for none.

    Raises:
        TextError: an item of which a tokenizer makes no token.
        ActorLost: a process died too often.
    """
    if run.routes is None or run.lora is None:
        return []
    adapting = Adapting(run.lora, run.seed, texts, models, asking)
    found = []
    for skill in run.lora.skills:
        of = {(each.source, each.target): each for each in adapted if each.skill == skill}
        found += _Routing(run, skill, of, adapting).measured()
    return found


class _Routing:
    """The paths of one skill."""

    def __init__(
        self, run: RunFile, skill: str, adapted: Mapping[Pair, Adapted], adapting: Adapting
    ) -> None:
        assert run.lora is not None, "a run that carries adapters"
        self._skill, self._adapted, self._adapting = skill, adapted, adapting
        self._draws, self._seed = run.lora.bootstrap_draws, run.seed
        self._native = {pair[1]: each.carried.made[NATIVE] for pair, each in adapted.items()}
        self._paths = Paths(run, {pair: self._kept(each) for pair, each in adapted.items()})

    def measured(self) -> list[Routed]:
        """Every pair's path, judged on test items."""
        best = {pair: path for pair in self._adapted if (path := self._paths.best(*pair))}
        ways = {
            pair: {BEST: path.nodes, **self._paths.others(*pair)} for pair, path in best.items()
        }
        arrived = self._arrived({nodes for of in ways.values() for nodes in of.values()})
        directly = self._directly(best)
        adapters = {
            pair: {name: arrived[nodes] for name, nodes in of.items()}
            | {SAME_READING: directly[pair]}
            for pair, of in ways.items()
        }
        scores = self._adapting.scores("test", self._skill, adapters)
        routed = {pair: of[BEST] for pair, of in adapters.items()}
        files = self._adapting.files(f"{self._skill}: writing routed adapters", routed)
        return [self._routed(pair, path, scores[pair], files[pair]) for pair, path in best.items()]

    def _routed(
        self, pair: Pair, path: Path, scores: Mapping[str, np.ndarray], files: Arrays
    ) -> Routed:
        adapted = self._adapted[pair]
        direct, native = (adapted.test[name] for name in (adapted.carried.way, NATIVE))
        base = scores[BASE]
        effects = {name: of - base for name, of in scores.items() if name != BASE}
        return Routed(
            adapted.key,
            path,
            native - base,
            direct - base,
            effects,
            self._draws,
            partial(adapter_files, files=files),
        )

    def _arrived(self, ways: set[Nodes]) -> dict[Nodes, Made]:
        """What the last model of every way, and of each beginning of one, has been carried."""
        found = {pair: each.carried.chosen for pair, each in self._adapted.items()}
        arrived: dict[Nodes, Made] = {**found}
        for length in range(3, 1 + max(map(len, ways), default=0)):
            begun = sorted({nodes[:length] for nodes in ways if len(nodes) >= length})
            legs = {nodes: ((nodes[-2], nodes[-1]), arrived[nodes[:-1]]) for nodes in begun}
            title = f"{self._skill}: routes of {length - 1} hops"
            arrived |= self._adapting.carried_on(title, self._skill, legs, self._native)
        return arrived

    def _directly(self, best: Mapping[Pair, Path]) -> dict[Pair, Made]:
        """What goes directly to a target that reads so often as a path has legs."""
        found = {}
        for times in sorted({len(path.nodes) - 1 for path in best.values()}):
            legs = {
                pair: (pair, self._native[pair[0]])
                for pair, path in best.items()
                if len(path.nodes) - 1 == times
            }
            title = f"{self._skill}: direct, reading {times} times"
            found |= self._adapting.carried_on(title, self._skill, legs, self._native, times)
        return found

    def _kept(self, adapted: Adapted) -> float:
        """The share of the native gain on held items; none where that is no more than chance."""
        held = adapted.carried.held
        judging = Judging(SKILLS[self._skill], held, held, self._draws, self._seed)
        share = judging.share(adapted.carried.way)
        return 0.0 if share is None else share.value
