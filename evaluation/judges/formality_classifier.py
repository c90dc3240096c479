"""Formality by a classifier that tells sentences of editorials from tweets.

A stand-in: nobody labelled these texts as formal or informal. An editorial is edited prose and a
tweet is not, but they also differ in their topics, and a plain sentence by itself is mostly taken
for an editorial's. So differences between scores say more than their signs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evaluation.judge import JudgeFacts, Score, error_rate
from evaluation.labelled import Labelled, editorial_lines, parted, tweets


@dataclass(frozen=True)
class FormalityClassifier:
    """Positive is formal."""

    name: str = "formality_classifier"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return _trained()(texts)

    def facts(self) -> JudgeFacts:
        return _facts()


@cache
def _lines() -> tuple[list[Labelled], list[Labelled]]:
    """To learn from, and held out."""
    formal = [replace(row, label=1.0) for row in editorial_lines()]
    informal = [replace(row, label=-1.0) for row in tweets()]
    return parted(formal + informal)


@cache
def _trained() -> Score:
    # Not at the top: scikit-learn takes a second to import.
    from evaluation.text_classifier import train

    return train(_lines()[0]).score


@cache
def _facts() -> JudgeFacts:
    training, held_out = _lines()
    scores = _trained()([row.text for row in held_out])
    error = error_rate(
        "held-out editorials and tweets, by their source", scores, [row.label for row in held_out]
    )
    return JudgeFacts("sentences of editorials, and tweets", len(training), error)
