import numpy as np
import pytest
import torch
from torch import Tensor

from alignment.fitted import FitError
from alignment.fitters.mlp import Mlp
from alignment.fitters.ridge import Ridge
from alignment.maps import Affine, Network
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows
from tests.alignment.fitters.oracle import FOLDS, fit, normal, rows

QUICK = Mlp(lambdas=(1e-3, 1e-1), decays=(0.1,), steps=(1, 40))


def bent(n: int = 200, ds: int = 6, dt: int = 5) -> tuple[Tensor, Tensor]:
    x = normal(0, n, ds)
    return x, torch.relu(x @ normal(1, ds, 8)) @ normal(2, 8, dt) + 0.2 * normal(3, n, dt)


def test_what_is_bent_is_told_better_than_by_ridge() -> None:
    x, y = bent(400)
    found, base = fit(QUICK, x, y), fit(Ridge(), x, y)
    assert isinstance(found.map, Network)
    assert found.held_out_r2 > base.held_out_r2 + 0.1
    assert found.chosen["step"] == 40
    assert found.facts == {"sampled_rows": 400, "neurons": 64}


def test_what_is_linear_is_left_to_ridge() -> None:
    x, y = rows(8, 5)
    found = fit(QUICK, x, y)
    base = fit(Ridge((found.chosen["lambda"],)), x, y)
    assert found.chosen["step"] == 1
    assert isinstance(found.map, Affine)
    assert found.map.to_bytes() == base.map.to_bytes()
    assert found.facts == {"sampled_rows": 90, "neurons": 0}


@pytest.mark.parametrize("thin", [1, 2, 5])
def test_the_base_is_judged_on_all_rows_and_is_never_better(thin: int) -> None:
    """However few rows are in the sample."""
    x, y = bent()
    ids = np.arange(len(x)) % FOLDS
    few = FoldedRows.of_rows(x[::thin], y[::thin], ids[::thin], FOLDS)
    moments = FoldedMoments.of_rows(x, y, ids, FOLDS)
    found, base = QUICK.fit(moments, few), Ridge(QUICK.lambdas).fit(moments)
    for value in QUICK.lambdas:
        assert found.curve[f"{value:g}, 0.1, 1"] == pytest.approx(base.curve[f"{value:g}"])
    assert found.held_out_r2 >= base.held_out_r2 - 1e-12


def test_the_map_passes_through_the_means() -> None:
    x, y = bent()
    found = fit(QUICK, x, y).map
    assert isinstance(found, Network)
    reached = found.transform(x.float()).mean(0).double()
    torch.testing.assert_close(reached, y.mean(0), rtol=0, atol=1e-5)


def test_rows_do_not_draw_the_weights_but_the_seed_does() -> None:
    x, y = bent()
    first, again, other = (
        fit(Mlp((0.1,), (0.1,), (40,), seed=seed), x, y).map.to_bytes() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_components_bound_what_is_read_and_written() -> None:
    x, y = bent()
    found = fit(Mlp((0.1,), (0.1,), (40,), components=2, neurons=7), x, y).map
    assert isinstance(found, Network)
    assert found.inner.shape == (7, 6)
    assert torch.linalg.matrix_rank(found.inner) == torch.linalg.matrix_rank(found.outer) == 2


def test_sizes_that_cannot_be_are_refused() -> None:
    for components, neurons in ((0, 64), (64, 0)):
        line = rf"^mlp needs at least one component and one neuron; got {components} and {neurons}$"
        with pytest.raises(FitError, match=line):
            Mlp(components=components, neurons=neurons)
