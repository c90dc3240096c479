import numpy as np
import pytest

from alignment.fitters.reduced_rank import ReducedRank
from tests.alignment.fitters.oracle import WIDTHS, Predict, Rows, assert_agree, fit, normal


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("value", [1e-3, 0.3])
def test_reduced_rank_is_that_of_dense_rows(value: float, share: float, ds: int, dt: int) -> None:
    """Least squares on rows to which the penalty is added as rows, cut by their own SVD."""

    def oracle(x: Rows, y: Rows) -> Predict:
        mean_x, mean_y = x.mean(0), y.mean(0)
        penalty = np.sqrt(value * x.var(0).mean() * len(x))
        more_x = np.concatenate((x - mean_x, penalty * np.eye(ds)))
        more_y = np.concatenate((y - mean_y, np.zeros((ds, dt))))
        weight = np.linalg.lstsq(more_x, more_y)[0]
        main = np.linalg.svd(more_x @ weight)[2][: round(share * min(ds, dt))]
        return lambda points: (points - mean_x) @ weight @ main.T @ main + mean_y

    assert_agree(ReducedRank((value,), (share,)), oracle, ds, dt)


def test_the_rank_is_that_of_what_was_planted() -> None:
    x = normal(0, 400, 16)
    planted = normal(1, 16, 4) @ normal(2, 4, 24)
    found = fit(ReducedRank(), x, x @ planted + 3 * normal(3, 400, 24))
    assert found.chosen["share"] == 0.25
