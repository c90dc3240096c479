"""The normal of the plane that best tells the two sides apart.

Shapes: n positive and m negative points, N both together, d width, r the lesser of N and d.
"""

from dataclasses import dataclass

import numpy as np

from alignment.contrast import Array, DirectionError, Extractor, difference

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


@dataclass(frozen=True)
class Probe(Extractor):
    """Logistic regression on standardised features, with a penalty λ * d / 2 * ‖weight‖².

    The loss is the mean over points, d counts the features that vary, and λ is the candidate with
    the least loss on held-out folds. Sides with as many points are taken for pairs, and both points
    of a pair are held out together. Which fold a pair falls in depends on how far apart it is along
    the difference of means, so that folds are alike and the order of the rows does not matter.

    The normal is given in the units of the points (weight / standard deviation). It reads the
    concept best, with what else varies discounted: where noise is correlated it is not the line
    that the sides differ along (Haufe et al. 2014, doi 10.1016/j.neuroimage.2013.10.067).
    """

    penalties: tuple[float, ...] = PENALTIES
    folds: int = 5

    def __post_init__(self) -> None:
        if not self.penalties or not all(0 < value < float("inf") for value in self.penalties):
            raise DirectionError(
                f"probe needs at least one penalty, each positive; got {self.penalties}"
            )
        if self.folds < 2:
            raise DirectionError(f"probe needs 2 folds or more, got {self.folds}")

    def axis(self, positive: Array, negative: Array) -> Array:
        points = np.concatenate((positive, negative))
        labels = np.repeat((1, 0), (len(positive), len(negative)))
        return _Solver(points, labels).normal(self._penalty(positive, negative, points, labels))[0]

    def _penalty(
        self, positive: Array, negative: Array, points: Array, labels: np.ndarray
    ) -> float:
        if len(self.penalties) == 1:
            return self.penalties[0]
        count = min(self.folds, len(positive), len(negative))
        fold = np.concatenate(_folds(positive, negative, count))
        losses = np.zeros(len(self.penalties))
        for held in (fold == number for number in range(count)):
            solver = _Solver(points[~held], labels[~held])
            for place, penalty in enumerate(self.penalties):
                normal, bias = solver.normal(penalty)
                margins = (points[held] @ normal + bias) * (2 * labels[held] - 1)
                losses[place] += np.logaddexp(0, -margins).sum()
        return self.penalties[int(losses.argmin())]


def _folds(positive: Array, negative: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of the fold of each point, [n] and [m]."""
    towards = difference(positive, negative)
    outward = positive @ towards, -negative @ towards
    if len(positive) == len(negative):
        together = outward[0] + outward[1]
        outward = together, together
    ranks = (values.argsort(kind="stable").argsort(kind="stable") for values in outward)
    above, below = (rank % count for rank in ranks)
    return above, below


class _Solver:
    """Standardised points Z = U diag(s) Vᵀ [N, d]: a weight is V times one of r coordinates.

    The penalty sees lengths only, so nothing is lost, and r is small where d is large.
    """

    def __init__(self, points: Array, labels: np.ndarray) -> None:
        self.labels = labels
        self.mean, spread = points.mean(axis=0), points.std(axis=0)
        # Spread that is only the rounding of a constant feature is none.
        varies = spread > np.abs(points).max(axis=0) * 4 * np.finfo(np.float32).eps
        self.width = max(1, int(varies.sum()))
        self.inverse = np.divide(1, spread, where=varies, out=np.zeros_like(spread))
        left, strengths, self.turn = np.linalg.svd(
            (points - self.mean) * self.inverse, full_matrices=False
        )
        self.coordinates = left * strengths  # [N, r]

    def normal(self, penalty: float) -> tuple[Array, float]:
        """Normal [d] and bias of the plane, for points as they came."""
        # Not at the top: it takes two seconds to import, and most runs take other directions.
        from sklearn.linear_model import LogisticRegression

        strength = penalty * self.width * len(self.labels)  # scikit-learn's loss is a sum
        model = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-8)
        model.fit(self.coordinates, self.labels)
        normal = model.coef_[0] @ self.turn * self.inverse
        return normal, float(model.intercept_[0] - self.mean @ normal)
