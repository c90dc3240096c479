"""A linear classifier of texts: n-grams of words and of letters, logistic regression.

Legend of shapes: n texts, f features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from evaluation.labelled import Labelled

INVERSE_PENALTY = 4.0  # of squared weights; a little weaker than the default of scikit-learn


@dataclass(frozen=True)
class TextClassifier:
    """The probability that a text is of the positive side, on the scale from -1 to 1."""

    vectorizers: tuple[TfidfVectorizer, ...]
    model: LogisticRegression

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """[n] in [-1, 1]; 0 for a text without a single feature that was seen in training."""
        if not texts:
            return np.empty(0)
        features = _beside(each.transform(texts) for each in self.vectorizers)
        odds = self.model.decision_function(features)  # [n], nats
        return np.where(np.diff(features.indptr) > 0, np.tanh(odds / 2), 0.0)  # 2 p - 1


def train(rows: Sequence[Labelled]) -> TextClassifier:
    """Fit the sign of the labels; both signs count as much, however many rows there are of each."""
    assert all(row.label for row in rows), "every label takes a side"
    vectorizers = (
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True),
    )
    texts = [row.text for row in rows]
    features = _beside(each.fit_transform(texts) for each in vectorizers)
    model = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000)
    return TextClassifier(vectorizers, model.fit(features, [row.label > 0 for row in rows]))


def _beside(parts: Iterable[Any]) -> Any:
    """Sparse rows [n, f], of all vectorizers."""
    return hstack(list(parts), format="csr")
