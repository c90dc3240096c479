"""What steering asks of a target, and how the answers are read.

Shapes: d width, k directions, s strengths, p prompts, b neutral texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.cargo.steering import injection
from actors.catalog import ModelFacts
from actors.sites import Injection
from cluster.storage import address
from evaluation.suite import Suite, slope
from jobs.units import Arrays, Unit, array_to_texts, texts_to_array

SIGNS = (1.0, -1.0)


@dataclass(frozen=True, eq=False)
class Push:
    """A direction [d] to be added at a site, as long as strength times `unit` asks for."""

    site: str
    direction: np.ndarray
    unit: float

    def at(self, strength: float) -> Injection:
        """The injection at a strength, against the direction where that is negative."""
        return injection(self.site, self.direction, self.unit, strength)


@dataclass(frozen=True, eq=False)
class Questions:
    """What can be asked of models about one behaviour."""

    models: Mapping[str, ModelFacts]
    suite: Suite

    def propensity(
        self,
        target: str,
        pushes: Sequence[Push],
        strengths: Sequence[float],
        prompts: Sequence[str],
    ) -> Unit:
        """Log-odds [k * s * 2, p] of the suite's words, at plus and minus every strength."""
        injections = _both_ways(pushes, strengths)
        words = (self.suite.positive, self.suite.negative)
        return Unit(
            self.models[target],
            "next_word_log_odds",
            (prompts, *words, injections),
            [prompts, *words, _named(injections)],
        )

    def cost(
        self, target: str, pushes: Sequence[Push], strengths: Sequence[float], texts: Sequence[str]
    ) -> Unit:
        """NLL and KL [k * s * 2, b] on neutral text; without pushes, of the target itself."""
        injections = _both_ways(pushes, strengths) or [None]
        return Unit(
            self.models[target],
            "neutral",
            (texts, injections),
            [texts, _named(injections)],
            lambda answer: {"nll": answer.nll, "kl": answer.kl},
        )

    def writing(
        self,
        target: str,
        prompts: Sequence[str],
        injections: Sequence[Injection | None],
        tokens: int,
    ) -> Unit:
        """What it writes after each prompt under each injection: see `written`."""
        return Unit(
            self.models[target],
            "generate",
            (prompts, injections, tokens),
            [prompts, _named(injections), tokens],
            lambda answer: {"texts": texts_to_array([text for of in answer for text in of])},
        )


def slopes(odds: Arrays, strengths: Sequence[float]) -> np.ndarray:
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


def levels(odds: Arrays, strengths: Sequence[float]) -> np.ndarray:
    """Mean log-odds [k, 2 s] over prompts, from minus the greatest strength to the greatest."""
    answer = odds["answer"]
    paired = answer.reshape(-1, len(strengths), len(SIGNS), answer.shape[-1]).mean(-1)
    signed = np.outer(strengths, SIGNS).ravel()
    return paired.reshape(len(paired), -1)[:, np.argsort(signed)]


def costs(answer: Arrays, name: str, strengths: Sequence[float]) -> np.ndarray:
    """`nll` or `kl` [k, s], means over texts and signs."""
    return answer[name].reshape(-1, len(strengths), len(SIGNS) * answer[name].shape[-1]).mean(2)


def written(answer: Arrays, prompts: Sequence[str]) -> list[list[str]]:
    """For each injection, what was written after each prompt."""
    texts = array_to_texts(answer["texts"])
    return [texts[start : start + len(prompts)] for start in range(0, len(texts), len(prompts))]


def _both_ways(pushes: Sequence[Push], strengths: Sequence[float]) -> list[Injection]:
    return [push.at(sign * strength) for push in pushes for strength in strengths for sign in SIGNS]


def _named(injections: Sequence[Injection | None]) -> list[Any]:
    """What settles the effect of injections, as JSON."""
    return [
        None if each is None else [each.site, address(each.vector.tobytes().hex()), each.strength]
        for each in injections
    ]
