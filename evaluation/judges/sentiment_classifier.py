"""Sentiment by a classifier that learnt from lines that people scored.

Film and product reviews, editorials and tweets, scored in one study (Hutto and Gilbert 2014). It
knows no lexicon, and none of the sentences of SST-2 that vectors are made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evaluation.judge import JudgeFacts, Score
from evaluation.sentiment_lines import rates, training


@dataclass(frozen=True)
class SentimentClassifier:
    """Positive is praise."""

    name: str = "sentiment_classifier"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return _trained()(texts)

    def facts(self) -> JudgeFacts:
        return _facts()


@cache
def _trained() -> Score:
    # Not at the top: scikit-learn takes a second to import.
    from evaluation.text_classifier import train

    return train(training()).score


@cache
def _facts() -> JudgeFacts:
    error, further = rates(_trained())
    return JudgeFacts(
        "lines of reviews, editorials and tweets, scored by people, none shared with SST-2",
        len(training()),
        error,
        further,
    )
