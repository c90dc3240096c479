"""Sentiment by VADER: a lexicon of words that people scored, and rules (Hutto and Gilbert 2014).

Its authors made it for tweets, and on theirs it is hardly ever wrong. Of much other prose it knows
too few words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from evaluation.judge import JudgeFacts
from evaluation.sentiment_lines import rates


@dataclass(frozen=True)
class SentimentLexicon:
    """Positive is praise; a text without a word of the lexicon scores 0."""

    name: str = "sentiment_lexicon"

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        scored = _vader().polarity_scores
        return np.array([scored(text)["compound"] for text in texts], np.float64)

    def facts(self) -> JudgeFacts:
        return _facts()


@cache
def _vader() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


@cache
def _facts() -> JudgeFacts:
    error, further = rates(SentimentLexicon().score)
    return JudgeFacts(
        f"rules, and a lexicon of {len(_vader().lexicon)} words scored by people", 0, error, further
    )
