"""Carries a steering vector over ordered pairs, chooses on dev, and measures on test.

Shapes: d width, k directions, p prompts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actors.catalog import ModelFacts
from actors.folder import FitOrder
from evaluation.cargos.steering import EQUAL_EFFECT
from evaluation.cells import Key
from evaluation.suites import SUITES
from evaluation.written import Both
from jobs.choosing import Choice, Choosing
from jobs.config import RunFile
from jobs.extract import Vectors
from jobs.fitting import Fitting
from jobs.questions import SIGNS, Push, Questions, costs, slopes, written
from jobs.sections import Concept
from jobs.texts import Texts
from jobs.units import Arrays, Asking, Unit
from jobs.ways import SCALED, HopKey, Way, Ways
from jobs.work import Work, shuffled

RELABELLED = "relabelled texts"

Kind = tuple[str, str]  # native, way, control or together; its name
Effects = dict[Kind, np.ndarray]  # slopes [k, p]


@dataclass(frozen=True, eq=False)
class Judged:
    """What test says of an ordered pair: slopes [p] in nats per unit of strength.

    `ways` has the slopes of each way to carry; `controls` [k, p] those of all draws of what
    should do nothing; `together` those of the mean of all sources' vectors, where there are
    several. `vector` [d] is what was injected: strength times it, at the site. `neutral` has
    (nll, kl) of the target as it is, steered natively and carried, means over texts and signs.
    `written` are generations for the judges, where the suite has any.
    """

    concept: str
    choice: Choice
    native: np.ndarray
    ways: dict[str, np.ndarray]
    controls: dict[str, np.ndarray]
    together: np.ndarray | None
    native_direction: np.ndarray
    vector: np.ndarray
    neutral: dict[str, tuple[float, float]]
    written: dict[str, Both]
    prompts: tuple[str, ...]
    samples: dict[str, list[str]]

    @property
    def key(self) -> Key:
        """Source, target, cargo, concept."""
        return self.choice.hop.source, self.choice.hop.target, "steering", self.concept


class Steerer:
    """One run's steering towards one concept: what it asks of which model, in what order."""

    def __init__(
        self,
        run: RunFile,
        concept: Concept,
        texts: Texts,
        work: Work,
        models: Mapping[str, ModelFacts],
        vectors: Vectors,
        asking: Asking,
        fitting: Fitting,
        trained: Mapping[HopKey, str],
    ) -> None:
        self.run, self.texts, self.work = run, texts, work
        self.concept = concept.name
        self.other = run.steers.other_than(concept.name)
        self.prompts = texts.prompts[concept.name]
        self.asking, self.fitting = asking, fitting
        self.ways = Ways(concept.name, work, models, vectors, fitting.store, trained)
        self.suite = SUITES[concept.suite]
        self.questions = Questions(models, self.suite)

    def judge(self, targets: Collection[str]) -> list[Judged]:
        """Choose on dev, measure on test; one result for each ordered pair with such a target.

        Nothing is asked of a source: its vectors and its maps are there.
        """
        choosing = Choosing(self.run, self.texts, self.ways, self.questions, self.asking)
        choices = choosing.choose([hop for hop in self.work.hops if hop.target in targets])
        effects = self._effects(choices)
        neutral = self._neutral(choices)
        texts = self._written(choices)
        samples = self._samples(choices)
        return [
            self._judged(*parts)
            for parts in zip(choices, effects, neutral, texts, samples, strict=True)
        ]

    def _effects(self, choices: Sequence[Choice]) -> list[Effects]:
        """Slopes of every direction of every choice on the test prompts."""
        orders = [self._shuffles(choice) for choice in choices]
        self.fitting.complete(
            f"{self.concept}: fitting control maps", [order for of in orders for order in of]
        )
        directions = [
            self._directions(choice, orders_of, choices)
            for choice, orders_of in zip(choices, orders, strict=True)
        ]
        units = [
            self.questions.propensity(
                choice.hop.target, pushes, (choice.strength,), self.prompts.test
            )
            for choice, of in zip(choices, directions, strict=True)
            for pushes in of.values()
        ]
        answers = iter(self._complete("measuring on test", units))
        return [
            {name: slopes(next(answers), (choice.strength,))[:, 0] for name in of}
            for choice, of in zip(choices, directions, strict=True)
        ]

    def _shuffles(self, choice: Choice) -> list[FitOrder]:
        """Control maps: of the fitter that was chosen, or else of the best."""
        name = choice.way.name
        fitter = name if name in choice.hop.maps else self.ways.best_fitted(choice.hop).name
        return [shuffled(choice.hop, fitter, draw) for draw in range(self.run.steers.shuffles)]

    def _directions(
        self, choice: Choice, shuffles: Sequence[FitOrder], choices: Sequence[Choice]
    ) -> dict[Kind, list[Push]]:
        """What is injected on test: for each kind of direction, all its draws."""
        hop, ways = choice.hop, choice.ways
        by_chance = [Way("", to, hop.target) for order in shuffles for _, to in order.maps]
        drawn = self.ways.random(hop, self.run.steers.random_directions, self.run.seed)
        found: dict[Kind, list[Push]] = {
            ("native", ""): [self.ways.native(hop)],
            **{("way", name): [self.ways.carried(hop, way)] for name, way in ways.items()},
            ("control", "random directions"): drawn,
            ("control", RELABELLED): self.ways.relabelled(hop),
            ("control", "shuffled rows"): [self.ways.carried(hop, way) for way in by_chance],
            ("control", "other concept"): [self.ways.carried(hop, choice.way, self.other)],
            ("control", "pad/truncate"): [self.ways.carried(hop, ways[SCALED])],
        }
        to_it = [each for each in choices if each.hop.target == hop.target]
        if len(to_it) > 1:
            carried = [self.ways.carried(each.hop, each.way) for each in to_it]
            found["together", ""] = [self.ways.together(carried, hop)]
        return found

    def _neutral(self, choices: Sequence[Choice]) -> list[dict[str, tuple[float, float]]]:
        texts = self.texts.neutral_test
        units = []
        for choice in choices:
            target = choice.hop.target
            native, carried = self._both(choice)
            units += [
                self.questions.cost(target, [], (), texts),
                self.questions.cost(target, [native, carried], (choice.strength,), texts),
                self.questions.cost(target, [carried], (choice.equal_strength,), texts),
            ]
        answers = iter(self._complete("cost on neutral text", units))
        return [_neutral_rows(*(next(answers) for _ in range(3))) for _ in choices]

    def _written(self, choices: Sequence[Choice]) -> list[dict[str, Both]]:
        """What is written after test prompts, pushed both ways: natively, carried, and as a control
        in the first of the random directions."""
        if not self.suite.judges:
            return [{} for _ in choices]
        prompts = self.prompts.test[: self.run.steers.judged_prompts]
        tokens = self.run.steers.sample_tokens
        units = []
        for choice in choices:
            pushes = (*self._both(choice), *self.ways.random(choice.hop, 1, self.run.seed))
            both = [push.at(sign * choice.strength) for push in pushes for sign in SIGNS]
            units.append(self.questions.writing(choice.hop.target, prompts, both, tokens))
        found = []
        for answer in self._complete("writing for the judges", units):
            texts = iter(written(answer, prompts))
            names = ("native", "carried", "control")
            found.append({name: (next(texts), next(texts)) for name in names})
        return found

    def _samples(self, choices: Sequence[Choice]) -> list[dict[str, list[str]]]:
        prompts, tokens = self._samples_asked, self.run.steers.sample_tokens
        units = []
        for choice in choices:
            injections = [None, *(push.at(choice.strength) for push in self._both(choice))]
            units.append(self.questions.writing(choice.hop.target, prompts, injections, tokens))
        answers = self._complete("writing samples", units)
        names = ("base", "native", "carried")
        return [dict(zip(names, written(answer, prompts), strict=True)) for answer in answers]

    def _both(self, choice: Choice) -> tuple[Push, Push]:
        """Native and carried."""
        return self.ways.native(choice.hop), self.ways.carried(choice.hop, choice.way)

    def _judged(
        self,
        choice: Choice,
        effects: Effects,
        neutral: dict[str, tuple[float, float]],
        texts: dict[str, Both],
        samples: dict[str, list[str]],
    ) -> Judged:
        native, carried = self._both(choice)
        together = effects.get(("together", ""))
        return Judged(
            concept=self.concept,
            choice=choice,
            native=effects["native", ""][0],
            ways={name: of[0] for (kind, name), of in effects.items() if kind == "way"},
            controls={name: of for (kind, name), of in effects.items() if kind == "control"},
            together=None if together is None else together[0],
            native_direction=native.direction,
            vector=carried.at(choice.strength).vector,
            neutral=neutral,
            written=texts,
            prompts=self._samples_asked,
            samples=samples,
        )

    @property
    def _samples_asked(self) -> tuple[str, ...]:
        return self.prompts.samples[: self.run.steers.samples]

    def _complete(self, stage: str, units: Sequence[Unit]) -> list[Arrays]:
        return self.asking.complete(f"{self.concept}: {stage}", units)


def _neutral_rows(base: Arrays, both: Arrays, equal: Arrays) -> dict[str, tuple[float, float]]:
    def cost(answer: Arrays, which: int) -> tuple[float, float]:
        nll, kl = (costs(answer, name, (1.0,))[which, 0] for name in ("nll", "kl"))
        return float(nll), float(kl)

    return {
        "base": (float(base["nll"].mean()), 0.0),
        "native": cost(both, 0),
        "carried": cost(both, 1),
        EQUAL_EFFECT: cost(equal, 0),
    }
