"""Laws of carriers, over the registry; and what each is for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.carriers import CARRIERS
from alignment.carriers.averaged import Averaged
from alignment.carriers.mapped import Mapped
from alignment.carriers.reordered import Reordered
from alignment.carriers.resized import Resized
from alignment.carriers.subspace import Subspace
from alignment.crossing import Crossing, NotApplicable
from alignment.layers import layer_shares
from alignment.maps import Affine
from alignment.updates import Update

SIZES = st.integers(2, 8)


def update(o: int, i: int, rank: int = 2) -> Update:
    return Update(torch.randn(o, rank), torch.randn(rank, i))


def through(o: int, i: int) -> Affine:
    return Affine(torch.randn(o, i), torch.randn(o))


def rotation(n: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, n))[0]


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(sorted(CARRIERS)))
def test_every_carrier_fits_the_target_and_keeps_the_rank(
    os: int, i_s: int, ot: int, it: int, name: str
) -> None:
    torch.manual_seed(os)
    carrier, given = CARRIERS[name](), update(os, i_s)
    over = Crossing(
        torch.randn(os, i_s),
        torch.randn(ot, it),
        through(i_s, it),
        through(ot, os),
        (torch.randperm(ot), torch.randperm(it)),
    )
    assert carrier.name == name
    try:
        carried = carrier.carry(given, over)
    except NotApplicable:
        assert (name, (os, i_s) == (ot, it)) == ("reordered", False)
        return
    assert carried.shape == (ot, it)
    assert carried.rank <= given.rank


@pytest.mark.parametrize("name", sorted(CARRIERS))
def test_between_a_model_and_itself_the_change_stays(name: str) -> None:
    torch.manual_seed(0)
    weight, given = torch.randn(6, 6), update(6, 6)
    same = Affine(torch.eye(6), torch.zeros(6))
    over = Crossing(weight, weight, same, same, (torch.arange(6), torch.arange(6)))
    carried = CARRIERS[name]().carry(given, over)
    expected = given.matrix / 2 if name == "averaged" else given.matrix
    torch.testing.assert_close(carried.matrix, expected, atol=1e-5, rtol=1e-4)


def test_what_is_known_of_two_twins_is_used() -> None:
    torch.manual_seed(0)
    given, weight = update(6, 6), torch.randn(6, 6)
    out, into = rotation(6), rotation(6)
    turned = out @ weight @ into.mT
    maps = Affine(into.mT.contiguous(), torch.zeros(6)), Affine(out, torch.zeros(6))
    wanted = out @ given.matrix @ into.mT
    carried = Mapped().carry(given, Crossing(weight, turned, *maps))
    torch.testing.assert_close(carried.matrix, wanted, atol=1e-5, rtol=1e-4)

    rows, columns = torch.randperm(6), torch.randperm(6)
    moved = Crossing(weight, weight[rows][:, columns], order=(rows, columns))
    reordered = Reordered().carry(given, moved)
    assert reordered.matrix.equal(given.matrix[rows][:, columns])
    # Of a permuted matrix the singular vectors are permuted too, and so are their largest numbers.
    subspace = Subspace().carry(given, moved)
    torch.testing.assert_close(
        subspace.matrix, given.matrix[rows][:, columns], atol=1e-5, rtol=1e-4
    )


def test_baselines_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    given, source, target = update(3, 4, rank=4), torch.randn(3, 4), torch.randn(5, 2)
    wanted = torch.zeros(5, 2)
    wanted[:3] = given.matrix[:, :2]
    over = Crossing(source, target)
    torch.testing.assert_close(Resized().carry(given, over).matrix, wanted)
    whole = torch.zeros(5, 2)
    whole[:3] = (source + given.matrix)[:, :2]
    averaged = Averaged().carry(given, over)
    torch.testing.assert_close(target + averaged.matrix, (target + whole) / 2)
    with pytest.raises(NotApplicable, match="mapped needs maps"):
        Mapped().carry(given, over)


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_source_layer_gives_all_of_its_change(source: int, target: int) -> None:
    shares = layer_shares(source, target)
    assert len(shares) == target
    for layer in range(source):
        assert sum(each.get(layer, 0) for each in shares) == pytest.approx(1)
    if source == target:
        assert shares == [{layer: 1.0} for layer in range(source)]
