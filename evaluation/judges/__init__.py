"""Judges of generated text: frozen dataclasses, one a file; the key is the file's name."""

from evaluation.judge import Judge
from evaluation.judges.formality_classifier import FormalityClassifier
from evaluation.judges.refusal import Refusal
from evaluation.judges.sentiment_classifier import SentimentClassifier
from evaluation.judges.sentiment_lexicon import SentimentLexicon

JUDGES: dict[str, Judge] = {
    "formality_classifier": FormalityClassifier(),
    "refusal": Refusal(),
    "sentiment_classifier": SentimentClassifier(),
    "sentiment_lexicon": SentimentLexicon(),
}

__all__ = ["JUDGES"]
