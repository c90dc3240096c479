"""Carries a steering vector over ordered pairs, chooses on dev, and measures on test.

Shapes: d width, k directions, s strengths, p prompts, b neutral texts.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from actors.cargo.steering import carry, injection, random_directions
from actors.catalog import ModelFacts
from actors.folder import report_address
from actors.sites import Injection
from alignment.maps import map_from_bytes
from cluster.storage import address
from evaluation.matrix import Key
from evaluation.suite import slope
from evaluation.suites import SUITES
from jobs.config import Concept, RunFile
from jobs.extract import Vectors
from jobs.fitting import Fitting
from jobs.texts import Texts
from jobs.units import Arrays, Asking, Unit, array_to_texts, texts_to_array
from jobs.work import Hop, Work, shuffled

SIGNS = (1.0, -1.0)

Kind = tuple[str, str]  # native, fitter or control; its name
Effects = dict[Kind, np.ndarray]  # slopes [k, p]


@dataclass(frozen=True, eq=False)
class Choice:
    """What dev settled for an ordered pair."""

    hop: Hop
    fitter: str
    strength: float

    @property
    def map_address(self) -> str:
        """The map that was chosen."""
        return self.hop.maps[self.fitter]


@dataclass(frozen=True, eq=False)
class Judged:
    """What test says of an ordered pair: slopes [p] in nats per unit of strength.

    `fitters` has the slopes of each fitter's map; `controls` [k, p] those of all draws of what
    should do nothing. `vector` [d] is what was injected: strength times it, at the site. `neutral`
    has (nll, kl) of the target as it is, steered natively and carried, means over texts and signs.
    """

    concept: str
    choice: Choice
    native: np.ndarray
    fitters: dict[str, np.ndarray]
    controls: dict[str, np.ndarray]
    native_direction: np.ndarray
    vector: np.ndarray
    neutral: dict[str, tuple[float, float]]
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
    ) -> None:
        self.run, self.texts, self.work = run, texts, work
        self.concept, self.suite = concept.name, SUITES[concept.suite]
        self.other = run.steering.other_than(concept.name)
        self.prompts = texts.prompts[concept.name]
        self.models, self.vectors = models, vectors
        self.asking, self.fitting = asking, fitting
        self.store = fitting.store

    def judge(self, targets: Collection[str]) -> list[Judged]:
        """Choose on dev, measure on test; one result for each ordered pair with such a target.

        Nothing is asked of a source: its vectors and its maps are there.
        """
        choices = self._choose([hop for hop in self.work.hops if hop.target in targets])
        effects = self._effects(choices)
        neutral = self._neutral(choices)
        samples = self._samples(choices)
        return [
            self._judged(*parts) for parts in zip(choices, effects, neutral, samples, strict=True)
        ]

    def _complete(self, stage: str, units: Sequence[Unit]) -> list[Arrays]:
        return self.asking.complete(f"{self.concept}: {stage}", units)

    # --- directions

    def _carried(self, hop: Hop, map_address: str) -> np.ndarray:
        return self._carried_of(self.concept, hop, map_address)

    def _carried_of(self, concept: str, hop: Hop, map_address: str) -> np.ndarray:
        vector = self.vectors[hop.source, hop.role, concept]
        return carry(vector, map_from_bytes(self.store.get(map_address)))

    def _native(self, hop: Hop) -> np.ndarray:
        return self.vectors[hop.target, hop.role, self.concept]

    def _spread(self, target: str, role: str) -> float:
        """The unit of strength at a site of the target, the same for every source."""
        hop = next(h for h in self.work.hops if (h.target, h.role) == (target, role))
        return self._report(next(iter(hop.maps.values())))["target_spread"]

    def _injection(self, hop: Hop, direction: np.ndarray, strength: float) -> Injection:
        spread = self._spread(hop.target, hop.role)
        return injection(hop.target_site, direction, spread, strength)

    # --- dev

    def _choose(self, hops: Sequence[Hop]) -> list[Choice]:
        """For each pair the role that carries most, at the strength that neutral text bears.

        The fitter is the one with the best R² on held-out anchors: no cargo is looked at for that.
        """
        strengths, prompts = self.run.steering.strengths, self.prompts.dev
        candidates = [(hop, self._best_fitter(hop)) for hop in hops]
        weakest = (min(strengths),)
        units = [
            self._propensity(hop, [self._carried(hop, hop.maps[fitter])], weakest, prompts)
            for hop, fitter in candidates
        ]
        slopes = [_slopes(odds, weakest).mean() for odds in self._complete("choosing role", units)]
        scored = zip(slopes, candidates, strict=True)
        pairs = groupby(scored, key=lambda each: (each[1][0].source, each[1][0].target))
        best = [max(of, key=lambda each: each[0])[1] for _, of in pairs]
        costs = [
            self._cost(hop, [self._native(hop)], strengths, self.texts.neutral_dev)
            for hop, _ in best
        ]
        answers = self._complete("choosing strength", costs)
        return [
            Choice(hop, fitter, self._strength(cost))
            for (hop, fitter), cost in zip(best, answers, strict=True)
        ]

    def _best_fitter(self, hop: Hop) -> str:
        return max(hop.maps, key=lambda name: self._report(hop.maps[name])["held_out_r2"])

    def _report(self, map_address: str) -> dict[str, Any]:
        return json.loads(self.store.get(report_address(map_address)))

    def _strength(self, cost: Arrays) -> float:
        """The greatest strength whose native vector spares neutral text; else the smallest."""
        strengths = self.run.steering.strengths
        kl = cost["kl"].reshape(len(strengths), -1).mean(1)
        spared = [
            s for s, each in zip(strengths, kl, strict=True) if each <= self.run.steering.neutral_kl
        ]
        return max(spared, default=min(strengths))

    # --- test

    def _effects(self, choices: Sequence[Choice]) -> list[Effects]:
        """Slopes of every direction of every choice on the test prompts."""
        draws = range(self.run.steering.shuffles)
        orders = [[shuffled(c.hop, c.fitter, draw) for draw in draws] for c in choices]
        self.fitting.complete(
            f"{self.concept}: fitting control maps", [order for of in orders for order in of]
        )
        directions = [
            self._directions(choice, [dict(order.maps)[choice.fitter] for order in of])
            for choice, of in zip(choices, orders, strict=True)
        ]
        prompts = self.prompts.test
        units = [
            self._propensity(choice.hop, each, (choice.strength,), prompts)
            for choice, of in zip(choices, directions, strict=True)
            for each in of.values()
        ]
        answers = iter(self._complete("measuring on test", units))
        return [
            {name: _slopes(next(answers), (choice.strength,))[:, 0] for name in of}
            for choice, of in zip(choices, directions, strict=True)
        ]

    def _directions(self, choice: Choice, shuffles: Sequence[str]) -> dict[Kind, list[np.ndarray]]:
        """What is injected on test: for each kind of direction, all its draws."""
        hop = choice.hop
        return {
            ("native", ""): [self._native(hop)],
            **{("fitter", name): [self._carried(hop, to)] for name, to in hop.maps.items()},
            ("control", "random directions"): self._random(hop),
            ("control", "shuffled rows"): [self._carried(hop, to) for to in shuffles],
            ("control", "other concept"): [self._carried_of(self.other, hop, choice.map_address)],
            ("control", "pad/truncate"): [self._carried(hop, hop.resizing)],
        }

    def _random(self, hop: Hop) -> list[np.ndarray]:
        width = self.models[hop.target].width
        return list(random_directions(width, self.run.steering.random_directions, self.run.seed))

    def _neutral(self, choices: Sequence[Choice]) -> list[dict[str, tuple[float, float]]]:
        texts = self.texts.neutral_test
        units = [
            self._cost(
                choice.hop,
                [self._native(choice.hop), self._carried(choice.hop, choice.map_address)],
                (choice.strength,),
                texts,
            )
            for choice in choices
        ]
        bare = [self._cost(choice.hop, [], (), texts) for choice in choices]
        answers = self._complete("cost on neutral text", [*units, *bare])
        rows = zip(answers[: len(choices)], answers[len(choices) :], strict=True)
        return [_neutral_rows(cost, base) for cost, base in rows]

    def _samples(self, choices: Sequence[Choice]) -> list[dict[str, list[str]]]:
        units = []
        for choice in choices:
            hop = choice.hop
            carried = self._carried(hop, choice.map_address)
            units += [
                self._writing(hop, None),
                self._writing(hop, self._injection(hop, self._native(hop), choice.strength)),
                self._writing(hop, self._injection(hop, carried, choice.strength)),
            ]
        answers = iter(self._complete("writing samples", units))
        names = ("base", "native", "carried")
        return [{name: array_to_texts(next(answers)["texts"]) for name in names} for _ in choices]

    def _judged(
        self,
        choice: Choice,
        effects: Effects,
        neutral: dict[str, tuple[float, float]],
        samples: dict[str, list[str]],
    ) -> Judged:
        carried = self._carried(choice.hop, choice.map_address)
        return Judged(
            concept=self.concept,
            choice=choice,
            native=effects["native", ""][0],
            fitters={name: of[0] for (kind, name), of in effects.items() if kind == "fitter"},
            controls={name: of for (kind, name), of in effects.items() if kind == "control"},
            native_direction=self._native(choice.hop),
            vector=self._injection(choice.hop, carried, choice.strength).vector,
            neutral=neutral,
            prompts=self._samples_asked,
            samples=samples,
        )

    @property
    def _samples_asked(self) -> tuple[str, ...]:
        return self.prompts.samples[: self.run.steering.samples]

    # --- units

    def _injections(
        self, hop: Hop, directions: Sequence[np.ndarray], strengths: Sequence[float]
    ) -> list[Injection]:
        return [
            self._injection(hop, direction, sign * strength)
            for direction in directions
            for strength in strengths
            for sign in SIGNS
        ]

    def _propensity(
        self,
        hop: Hop,
        directions: Sequence[np.ndarray],
        strengths: Sequence[float],
        prompts: Sequence[str],
    ) -> Unit:
        """Log-odds [k * s * 2, p] of the suite's words, at plus and minus every strength."""
        injections = self._injections(hop, directions, strengths)
        words = (self.suite.positive, self.suite.negative)
        return Unit(
            self.models[hop.target],
            "next_word_log_odds",
            (prompts, *words, injections),
            [prompts, *words, _named(injections)],
        )

    def _cost(
        self,
        hop: Hop,
        directions: Sequence[np.ndarray],
        strengths: Sequence[float],
        texts: Sequence[str],
    ) -> Unit:
        """NLL and KL [k * s * 2, b] on neutral text; without directions, of the target itself."""
        injections = self._injections(hop, directions, strengths) or [None]
        return Unit(
            self.models[hop.target],
            "neutral",
            (texts, injections),
            [texts, _named(injections)],
            lambda answer: {"nll": answer.nll, "kl": answer.kl},
        )

    def _writing(self, hop: Hop, injected: Injection | None) -> Unit:
        prompts = self._samples_asked
        tokens = self.run.steering.sample_tokens
        return Unit(
            self.models[hop.target],
            "generate",
            (prompts, injected, tokens),
            [prompts, _named([injected]), tokens],
            lambda answer: {"texts": texts_to_array(answer)},
        )


def _slopes(odds: Arrays, strengths: Sequence[float]) -> np.ndarray:
    """Slopes [k, s, p] from log-odds at plus and minus each strength."""
    answer = odds["answer"]
    paired = answer.reshape(-1, len(strengths), len(SIGNS), answer.shape[-1])
    return np.stack(
        [
            [
                slope(of_sign, strength * np.array(SIGNS))
                for of_sign, strength in zip(of, strengths, strict=True)
            ]
            for of in paired
        ]
    )


def _neutral_rows(cost: Arrays, base: Arrays) -> dict[str, tuple[float, float]]:
    nll, kl = (cost[name].reshape(2, -1).mean(1) for name in ("nll", "kl"))
    return {
        "base": (float(base["nll"].mean()), 0.0),
        "native": (float(nll[0]), float(kl[0])),
        "carried": (float(nll[1]), float(kl[1])),
    }


def _named(injections: Sequence[Injection | None]) -> list[Any]:
    """What settles the effect of injections, as JSON."""
    return [
        None if each is None else [each.site, address(each.vector.tobytes().hex()), each.strength]
        for each in injections
    ]
