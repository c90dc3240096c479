"""What scikit-learn makes of the same points."""

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alignment.contrast import DirectionError
from alignment.directions.difference_of_means import DifferenceOfMeans
from alignment.directions.principal_difference import PrincipalDifference
from alignment.directions.probe import Probe


def sides(seed: int, n: int = 40, d: int = 6, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs with noise that is correlated and of uneven scale, about a place far from 0."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((d, d)) * np.geomspace(0.1, 20, d)
    places = random.standard_normal((n, d))
    noise, towards = random.standard_normal((2, n, d)), random.standard_normal(d)
    positive = (places + noise[0] + apart * towards) @ mixed + 7
    return positive.astype(np.float32), ((places + noise[1]) @ mixed + 7).astype(np.float32)


def pipeline(penalty: float, count: int, width: int) -> Any:
    strength = penalty * count * width
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / strength, tol=1e-9, max_iter=20_000)
    )


def labelled(positive: np.ndarray, negative: np.ndarray) -> tuple[Any, Any]:
    points = np.concatenate((positive, negative)).astype(np.float64)
    return points, np.repeat((1, 0), (len(positive), len(negative)))


def along(axis: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    unit = axis / np.linalg.norm(axis)
    return unit * ((positive.astype(np.float64) - negative) @ unit).mean()


def plane(penalty: float, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    points, labels = labelled(positive, negative)
    fitted = pipeline(penalty, *points.shape).fit(points, labels)
    return fitted[1].coef_[0] / fitted[0].scale_


def test_difference_of_means_keeps_its_own_length() -> None:
    positive, negative = sides(0)
    found = DifferenceOfMeans().direction(positive, negative[:17])
    means = positive.mean(0, dtype=np.float64) - negative[:17].mean(0, dtype=np.float64)
    assert found.tobytes() == means.astype(np.float32).tobytes()


@pytest.mark.parametrize("n", [4, 40])
def test_principal_difference_is_that_of_pairs_in_both_orders(n: int) -> None:
    positive, negative = sides(1, n=n)
    apart: Any = positive.astype(np.float64) - negative
    oracle = PCA(n_components=1).fit(np.concatenate((apart, -apart)))
    found = PrincipalDifference().direction(positive, negative)
    wanted = along(oracle.components_[0], positive, negative)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("d", [6, 90])
def test_probe_is_logistic_regression_on_standardised_points(penalty: float, d: int) -> None:
    positive, negative = sides(2, d=d)
    found = Probe((penalty,)).direction(positive, negative)
    wanted = along(plane(penalty, positive, negative), positive, negative)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max()))


def test_penalty_is_that_of_pairs_held_out_whole() -> None:
    """With as many folds as pairs there is one way to hold pairs out: one after the other."""
    penalties, n, d = (1.0, 0.1, 1e-2, 1e-3), 12, 4
    chosen = set()
    for seed, apart in enumerate((0.05, 0.3, 0.6, 1.0, 3.0)):
        positive, negative = sides(seed, n=n, d=d, apart=apart)
        points, labels = labelled(positive, negative)
        losses = [
            log_loss(
                labels,
                cross_val_predict(
                    pipeline(penalty, 2 * n - 2, d),
                    points,
                    labels,
                    groups=np.tile(np.arange(n), 2),
                    cv=LeaveOneGroupOut(),
                    method="predict_proba",
                ),
            )
            for penalty in penalties
        ]
        best = penalties[int(np.argmin(losses))]
        chosen.add(best)
        found = Probe(penalties, folds=n).direction(positive, negative)
        alone = Probe((best,)).direction(positive, negative)
        assert found.tobytes() == alone.tobytes()
    assert len(chosen) > 1


@pytest.mark.parametrize("penalties", [(), (0.0,), (0.1, -1.0), (float("nan"),), (float("inf"),)])
def test_a_penalty_that_cannot_be_is_refused(penalties: tuple[float, ...]) -> None:
    with pytest.raises(DirectionError, match="at least one penalty, each positive"):
        Probe(penalties)


def test_one_fold_is_refused() -> None:
    with pytest.raises(DirectionError, match="2 folds or more, got 1"):
        Probe(folds=1)
