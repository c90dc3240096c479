"""What a judge of generated text is, and how often it is wrong.

Legend of shapes: n texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.retention import CONFIDENCE, Interval

Score = Callable[[Sequence[str]], NDArray[np.float64]]  # as Judge.score


class JudgeError(ValueError):
    """A judge that lacks what it is made from: one line, with the pip command that brings it."""


@dataclass(frozen=True)
class ErrorRate:
    """How often a judge and labels disagree, with the 95 % interval of Wilson (1927).

    `silent` is the share of texts with a score of 0, each of which counts as wrong in `rate`.
    """

    labels: str
    count: int
    rate: Interval
    silent: float


@dataclass(frozen=True)
class JudgeFacts:
    """What a judge was made from, and how far it can be trusted.

    `rows` is how many labelled rows it learnt from, none where it is made of rules. `error` is
    measured on labelled texts that it did not learn from; `further` says more of the same, by kind
    or on other labels.
    """

    made_of: str
    rows: int
    error: ErrorRate
    further: tuple[ErrorRate, ...] = ()


class Judge(Protocol):
    """Says of texts how far they show a concept. What it needs is read when it is first asked.

    Raises:
        JudgeError: by any method; a package that it needs is not installed.
    """

    @property
    def name(self) -> str:
        """As in `JUDGES`."""
        ...

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """[n] in [-1, 1], positive towards the concept; 0 where a text has nothing to judge."""
        ...

    def facts(self) -> JudgeFacts:
        """What it was made from and how often it is wrong."""
        ...


def error_rate(labels: str, scores: ArrayLike, sides: ArrayLike) -> ErrorRate:
    """How often the sign of a score is not the label's; a score of 0 is wrong.

    Args:
        labels: what the labels are, in a few words.
        scores: [n] from a judge.
        sides: [n], positive where the label says the concept is there, and negative where not.
    """
    # Not at the top: it takes a second to import.
    from scipy.stats import binomtest

    said, meant = np.sign(scores), np.sign(sides)
    assert said.shape == meant.shape, "every score has a label"
    assert meant.all(), "every label takes a side"
    result = binomtest(int((said != meant).sum()), said.size)
    low, high = result.proportion_ci(CONFIDENCE, method="wilson")
    rate = Interval(float(result.statistic), float(low), float(high))
    return ErrorRate(labels, said.size, rate, float((said == 0).mean()))
