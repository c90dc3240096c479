"""What is settled on dev prompts: where a target is steered, how strongly, and how to carry.

Shapes: s strengths, p prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.protocol import simplest
from evaluation.retention import Interval, measure_retention
from jobs.config import RunFile
from jobs.questions import Push, Questions, costs, levels, slopes
from jobs.texts import Texts
from jobs.units import Arrays, Asking, Unit
from jobs.ways import HopKey, Way, Ways, key_of
from jobs.work import Hop, Place

Spot = tuple[str, Place]  # a target and a place in it
Asked = tuple[str, Push, tuple[float, ...]]  # a target, what is added there, at which strengths


@dataclass(frozen=True, eq=False)
class Setting:
    """What a target's own vector does at a place: slopes [p] at the greatest strength that neutral
    text bears."""

    strength: float
    slopes: np.ndarray

    @property
    def effect(self) -> float:
        """Nats at that strength, towards the behaviour."""
        return float(self.slopes.mean()) * self.strength


@dataclass(frozen=True, eq=False)
class Visited:
    """A place that was tried: what the native vector does there, and slopes [p] of what the best
    map on held-out anchors carries there."""

    hop: Hop
    setting: Setting
    carried: np.ndarray

    def kept(self, draws: int, seed: int) -> Interval | None:
        """The share of the native effect that is carried there; None where there is none."""
        native = self.setting.slopes
        base = np.zeros_like(native)
        return measure_retention(base, native, self.carried, draws=draws, seed=seed).retention


@dataclass(frozen=True, eq=False)
class Choice:
    """What dev settled for an ordered pair: the place and strength at which the native vector does
    most, and the simplest way to carry that does as well as the best.

    `ways` are all of them, simplest first, and `tried` their slopes [p] there. `curves` are mean
    log-odds [2 s] by name, from minus the greatest strength to the greatest.
    """

    hop: Hop
    setting: Setting
    ways: dict[str, Way]
    way: Way
    tried: dict[str, np.ndarray]
    visited: tuple[Visited, ...]
    curves: Mapping[str, np.ndarray]

    @property
    def strength(self) -> float:
        return self.setting.strength

    @property
    def equal_strength(self) -> float:
        """The strength at which what is carried should do what the native vector does.

        Within a factor of four, since a straight line is followed to it.
        """
        share = self.tried[self.way.name].mean() / self.setting.slopes.mean()
        return self.strength / float(np.clip(share, 0.25, 4.0))


@dataclass(frozen=True, eq=False)
class Choosing:
    """One concept's choices, for the pairs of a run."""

    run: RunFile
    texts: Texts
    ways: Ways
    questions: Questions
    asking: Asking

    def choose(self, hops: Sequence[Hop]) -> list[Choice]:
        """One choice for each ordered pair of these hops."""
        settings = self._settings(hops)
        carried = self._by_best_fitted(hops, settings)
        chosen, all_visited = [], []
        for of in _by_pair(hops):
            visited = tuple(
                Visited(hop, settings[hop.target, hop.place], carried[key_of(hop)]) for hop in of
            )
            chosen.append(max(visited, key=lambda each: each.setting.effect))
            all_visited.append(visited)
        tried = self._tried(chosen)
        ways = [self.ways.of(best.hop) for best in chosen]
        used = [
            of[self._simplest(best.setting, by)]
            for best, of, by in zip(chosen, ways, tried, strict=True)
        ]
        curves = self._curves([best.hop for best in chosen], used)
        return [
            Choice(best.hop, best.setting, *rest)
            for best, *rest in zip(chosen, ways, used, tried, all_visited, curves, strict=True)
        ]

    def _curves(self, hops: Sequence[Hop], used: Sequence[Way]) -> list[dict[str, np.ndarray]]:
        """Of every pair, what each strength does: natively, carried, and in a random direction."""
        strengths, seed = self.run.steers.strengths, self.run.seed
        asked = [
            {
                "native": self.ways.native(hop),
                "carried": self.ways.carried(hop, way),
                "control": self.ways.random(hop, 1, seed)[0],
            }
            for hop, way in zip(hops, used, strict=True)
        ]
        units = [
            self.questions.propensity(hop.target, [push], strengths, self._prompts)
            for hop, of in zip(hops, asked, strict=True)
            for push in of.values()
        ]
        answers = iter(self._complete("strengths on dev", units))
        return [{name: levels(next(answers), strengths)[0] for name in of} for of in asked]

    def _settings(self, hops: Sequence[Hop]) -> dict[Spot, Setting]:
        """Of each target at every place: the same whatever is carried there."""
        strengths = self.run.steers.strengths
        natives = {(hop.target, hop.place): self.ways.native(hop) for hop in hops}
        asked = [(target, push, strengths) for (target, _), push in natives.items()]
        found = self._slopes("native vectors on dev", asked)
        units = [
            self.questions.cost(target, [push], strengths, self.texts.neutral_dev)
            for (target, _), push in natives.items()
        ]
        answers = self._complete("their cost on neutral text", units)
        settings = {}
        for spot, of, cost in zip(natives, found, answers, strict=True):
            strength = self._spared(costs(cost, "kl", strengths)[0])
            settings[spot] = Setting(strength, of[strengths.index(strength)])
        return settings

    def _spared(self, kl: np.ndarray) -> float:
        """The greatest strength that neutral text bears; else the smallest."""
        steering = self.run.steers
        pairs = zip(steering.strengths, kl, strict=True)
        spared = [strength for strength, each in pairs if each <= steering.neutral_kl]
        return max(spared, default=min(steering.strengths))

    def _by_best_fitted(
        self, hops: Sequence[Hop], settings: Mapping[Spot, Setting]
    ) -> dict[HopKey, np.ndarray]:
        asked = [
            (
                hop.target,
                self.ways.carried(hop, self.ways.best_fitted(hop)),
                (settings[hop.target, hop.place].strength,),
            )
            for hop in hops
        ]
        found = self._slopes("every place on dev", asked)
        return {key_of(hop): of[0] for hop, of in zip(hops, found, strict=True)}

    def _tried(self, chosen: Sequence[Visited]) -> list[dict[str, np.ndarray]]:
        """Slopes [p] of every way to carry, for each pair."""
        asked = [
            (each.hop.target, self.ways.carried(each.hop, way), (each.setting.strength,))
            for each in chosen
            for way in self.ways.of(each.hop).values()
        ]
        found = iter(self._slopes("ways to carry on dev", asked))
        return [{name: next(found)[0] for name in self.ways.of(each.hop)} for each in chosen]

    def _simplest(self, setting: Setting, tried: Mapping[str, np.ndarray]) -> str:
        draws = self.run.steers.bootstrap_draws
        return simplest(setting.slopes, tried, draws=draws, seed=self.run.seed)

    def _slopes(self, stage: str, asked: Sequence[Asked]) -> list[np.ndarray]:
        """Slopes [s, p] of each push at each of its strengths."""
        units = [
            self.questions.propensity(target, [push], strengths, self._prompts)
            for target, push, strengths in asked
        ]
        answers = zip(asked, self._complete(stage, units), strict=True)
        return [slopes(odds, strengths)[0] for (*_, strengths), odds in answers]

    @property
    def _prompts(self) -> tuple[str, ...]:
        return self.texts.prompts[self.ways.concept].dev

    def _complete(self, stage: str, units: Sequence[Unit]) -> list[Arrays]:
        return self.asking.complete(f"{self.ways.concept}: {stage}", units)


def _by_pair(hops: Iterable[Hop]) -> list[list[Hop]]:
    pairs: dict[tuple[str, str], list[Hop]] = {}
    for hop in hops:
        pairs.setdefault((hop.source, hop.target), []).append(hop)
    return list(pairs.values())
