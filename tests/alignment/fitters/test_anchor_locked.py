import pytest
import torch
from torch import Tensor

from alignment.fitted import FitError
from alignment.fitters.anchor_locked import AnchorLocked
from alignment.fitters.procrustes import Procrustes
from tests.alignment.fitters.oracle import WIDTHS, fit, linear, normal, rows


def mirrored(anchors: list[float]) -> tuple[Tensor, Tensor]:
    """Many short rows that are turned round in their second feature, and a few long anchors.

    `anchors` are what becomes of a 5 there, in the source; the long rows come in pairs of both
    signs, so that they have no mean.
    """
    x = normal(0, 300, 2) * torch.tensor([1.0, 0.6])
    y = x * torch.tensor([1.0, -1.0])
    long = torch.tensor([[0.0, 5.0]] * len(anchors), dtype=torch.float64)
    images = torch.tensor([[0.0, each] for each in anchors], dtype=torch.float64)
    return torch.cat((x, long, -long)), torch.cat((y, images, -images))


def test_an_anchor_that_procrustes_turns_round_stays_on_its_side() -> None:
    x, y = mirrored([5.0])
    plain, locked = fit(Procrustes(), x, y), fit(AnchorLocked(locks=2), x, y)
    a, b = (x - x.mean(0))[300:], (y - y.mean(0))[300:]

    def cosines(some: Tensor) -> Tensor:
        return torch.cosine_similarity(a @ some.mT, b)

    assert (cosines(linear(plain).matrix) < -0.9).all()
    assert (cosines(linear(locked).matrix) > 0.9).all()
    # The one is the mirror image of the other.
    assert linear(plain).matrix.det() < 0 < linear(locked).matrix.det()
    assert locked.facts == {"locked": 2, "on_the_wrong_side": 0}


def test_of_locks_that_contradict_each_other_the_fewest_are_broken() -> None:
    fitted = fit(AnchorLocked(locks=8), *mirrored([5.0, 5.1, 5.2, -4.9]))
    assert fitted.facts == {"locked": 8, "on_the_wrong_side": 2}
    assert linear(fitted).matrix[1, 1] > 0


@pytest.mark.parametrize(("ds", "dt"), WIDTHS)
def test_without_an_anchor_on_the_wrong_side_it_is_procrustes(ds: int, dt: int) -> None:
    x, y = rows(ds, dt, noise=0.1)
    y = torch.cat((x, x), dim=1)[:, :dt] + 0.1 * y / y.std()
    locked, plain = fit(AnchorLocked(), x, y), fit(Procrustes(), x, y)
    assert locked.facts == {"locked": 64, "on_the_wrong_side": 0}
    torch.testing.assert_close(linear(locked).matrix, linear(plain).matrix, rtol=0, atol=1e-6)


def test_what_is_fitted_is_a_rotation_and_a_positive_scale() -> None:
    for x, y in (mirrored([5.0]), mirrored([5.0, -5.0]), (normal(1, 60, 2), normal(2, 60, 2))):
        weight = linear(fit(AnchorLocked(), x, y)).matrix
        square = weight.mT @ weight
        scale = float(square[0, 0])
        assert scale > 0
        eye = torch.eye(2, dtype=torch.float64)
        torch.testing.assert_close(square / scale, eye, rtol=0, atol=1e-5)


def test_no_locks_are_refused() -> None:
    with pytest.raises(FitError, match=r"^anchor_locked needs at least one lock; got 0$"):
        AnchorLocked(locks=0)
