import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from alignment.fitters.bottleneck import Bottleneck
from tests.alignment.fitters.oracle import WIDTHS, Predict, Rows, assert_agree, fit, normal


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_bottleneck_is_scikit_learn_between_its_components(share: float, ds: int, dt: int) -> None:
    rank = round(share * min(ds, dt))

    def oracle(x: Rows, y: Rows) -> Predict:
        source, target = PCA(rank).fit(x), PCA(rank).fit(y)
        between = LinearRegression().fit(source.transform(x), target.transform(y))
        return lambda points: target.inverse_transform(between.predict(source.transform(points)))

    assert_agree(Bottleneck((share,)), oracle, ds, dt)


def test_the_rank_is_that_of_what_the_main_components_share() -> None:
    x = normal(0, 400, 16) * torch.tensor([4.0] * 4 + [1.0] * 12)
    y = x[:, :4] @ torch.eye(4, 24, dtype=torch.float64) + 2 * normal(1, 400, 24)
    assert fit(Bottleneck(), x, y).chosen == {"share": 0.25}
