import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge as SklearnRidge

from alignment.fitted import FitError
from alignment.fitters.multi_scale import MultiScale
from alignment.fitters.ridge import Ridge
from tests.alignment.fitters.oracle import WIDTHS, Predict, Rows, assert_agree, fit, linear, rows

BANDS = (0.5, 0.9)


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("lambdas", [(1e-3, 1e-1, 10.0), (1.0, 1e-4, 1e-2)])
def test_each_band_is_a_ridge_of_scikit_learn(
    lambdas: tuple[float, float, float], ds: int, dt: int
) -> None:
    def oracle(x: Rows, y: Rows) -> Predict:
        source = PCA().fit(x)
        unit = float(x.var(0).mean()) * len(x)
        shares = source.explained_variance_ratio_
        band = np.searchsorted(BANDS, shares.cumsum() - shares, side="right")
        assert set(band) == {0, 1, 2}
        fitted = [
            SklearnRidge(alpha=value * unit, fit_intercept=False).fit(
                source.transform(x)[:, band == at], y - y.mean(0)
            )
            for at, value in enumerate(lambdas)
        ]
        return lambda points: (
            y.mean(0)
            + sum(
                each.predict(source.transform(points)[:, band == at])
                for at, each in enumerate(fitted)
            )
        )

    coarse, middle, fine = lambdas
    assert_agree(MultiScale(BANDS, (coarse,), (middle,), (fine,)), oracle, ds, dt)


def test_one_lambda_for_all_bands_is_ridge() -> None:
    x, y = rows(8, 5)
    bands = linear(fit(MultiScale(BANDS, (0.1,), (0.1,), (0.1,)), x, y))
    np.testing.assert_allclose(bands.matrix, linear(fit(Ridge((0.1,)), x, y)).matrix, atol=1e-6)


@pytest.mark.parametrize("bands", [(0.0, 0.5), (0.9, 0.5), (0.5, 1.0), (float("nan"), 0.5)])
def test_bands_that_cannot_be_are_refused(bands: tuple[float, float]) -> None:
    with pytest.raises(FitError, match="multi_scale needs two shares of the variance, rising"):
        MultiScale(bands)
