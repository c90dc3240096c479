"""Maps between caches, held to scikit-learn, to singular values, and to planted maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from torch import Tensor

from alignment.cache_fit import NEAR_LAMBDAS, FittedCaches, fit_caches, nearer
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.fitted import FitError
from alignment.maps import LowRank, MapError

SITES = {"keys.0": 6, "values.0": 4}
READS = {"keys.0": 5, "keys.1": 5, "tokens": 3}


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(seed: int, rows: int = 400) -> dict[str, Tensor]:
    return {
        name: normal(seed + number, rows, width) * torch.arange(1, width + 1) + number
        for number, (name, width) in enumerate(READS.items())
    }


def planted(of: dict[str, Tensor], noise: float = 0.0, rank: int = 10) -> Tensor:
    x = torch.cat(list(of.values()), 1)
    weight = normal(90, x.shape[1], rank) @ normal(91, rank, sum(SITES.values()))
    return x @ weight + 3 + noise * normal(92, len(x), weight.shape[1])


def moments(of: dict[str, Tensor], y: Tensor, reduced: dict[str, Reduction]) -> CacheMoments:
    return CacheMoments.of(torch.cat([each(of[name]) for name, each in reduced.items()], 1), y)


def everything(of: dict[str, Tensor]) -> dict[str, Reduction]:
    return {name: Reduction.of(rows, rows.shape[1]) for name, rows in of.items()}


@given(st.integers(0, 10**6))
def test_sums_add_up_in_any_order(seed: int) -> None:
    x, y = normal(seed, 90, 4), normal(seed + 1, 90, 3)
    whole = CacheMoments.of(x, y)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(seed))
    parts = [CacheMoments.of(x[some], y[some]) for some in order.split(40)]
    summed = parts[2] + parts[0] + parts[1]
    for name in ("sum_x", "sum_y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(summed, name), getattr(whole, name), rtol=0, atol=1e-4)


def test_rows_about_a_place_are_rows_that_were_moved() -> None:
    x, y = normal(1, 50, 4), normal(2, 50, 3)
    a, b = normal(3, 4).double(), normal(4, 3).double()
    moved = CacheMoments.of(x.double() - a, y.double() - b)
    near = CacheMoments.of(x, y).about(a, b)
    for name in ("sum_x", "sum_y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(near, name), getattr(moved, name), rtol=0, atol=1e-4)


def test_components_are_those_of_scikit_learn() -> None:
    rows = normal(0, 300, 8) @ normal(1, 8, 8) + 2
    reduced = Reduction.of(rows, 3)
    standard = (rows - rows.mean(0)) / rows.std(0)
    expected = PCA(3).fit_transform(standard.double().numpy())
    assert np.allclose(np.abs(reduced(rows).numpy()), np.abs(expected), atol=1e-3)


def test_what_never_changes_tells_nothing() -> None:
    rows = normal(0, 50, 3)
    rows[:, 1] = 7.0
    changed = rows.clone()
    changed[:, 1] = 9.0
    assert torch.equal(Reduction.of(rows, 3)(changed), Reduction.of(rows, 3)(rows))
    plain = Reduction.of(rows)
    assert plain.scale[1] == 0
    assert plain.width == 3
    expected = (rows - rows.mean(0))[:, ::2] / rows.std(0)[::2]
    torch.testing.assert_close(plain(rows)[:, ::2], expected)


def test_a_planted_map_is_recovered() -> None:
    of = inputs(0)
    y, reduced = planted(of), everything(of)
    found = fit_caches(moments(of, y, reduced), moments(of, y, reduced), reduced, SITES)
    cells = found.map.transform(of)
    assert {site: part.shape[1] for site, part in cells.items()} == SITES
    torch.testing.assert_close(torch.cat(list(cells.values()), 1), y, rtol=1e-2, atol=1e-1)
    assert min(found.held_out_r2.values()) > 0.999


def test_each_site_is_fitted_as_by_scikit_learn() -> None:
    of, held = inputs(0), inputs(50, 200)
    y, wanted, reduced = planted(of, 30.0), planted(held, 30.0), everything(of)
    sums = moments(of, y, reduced), moments(held, wanted, reduced)
    found = fit_caches(*sums, reduced, SITES, lambdas=(0.01, 0.3))
    x = torch.cat([each(of[name]) for name, each in reduced.items()], 1).double().numpy()
    xh = torch.cat([each(held[name]) for name, each in reduced.items()], 1).double().numpy()
    columns = dict(zip(SITES, (slice(0, 6), slice(6, 10)), strict=True))
    for site, of_site in columns.items():
        errors = {}
        for value in (0.01, 0.3):
            model = Ridge(alpha=value * x.var(0).mean() * len(x)).fit(x, y[:, of_site].numpy())
            errors[value] = ((wanted[:, of_site].numpy() - model.predict(xh)) ** 2).sum()
        best = min(errors, key=errors.__getitem__)
        assert found.lambdas[site] == best
        centre = wanted[:, of_site] - y[:, of_site].mean(0)
        expected = 1 - errors[best] / float(centre.square().sum())
        assert found.held_out_r2[site] == pytest.approx(expected, abs=1e-4)
        both = np.concatenate((x, xh))
        model = Ridge(alpha=best * both.var(0).mean() * len(both))
        model.fit(both, torch.cat((y, wanted))[:, of_site].numpy())
        carried = found.map.transform(held)[site].numpy()
        assert np.allclose(carried, model.predict(xh), rtol=1e-3, atol=1e-2)


def test_a_cut_keeps_the_main_directions_of_what_is_fitted() -> None:
    of = inputs(0)
    y, reduced = planted(of, 5.0), everything(of)
    sums = moments(of, y, reduced)
    full = fit_caches(sums, sums, reduced, SITES).map
    cut = fit_caches(sums, sums, reduced, SITES).cut(3)
    assert isinstance(cut.map, LowRank)
    assert cut.map.rank == 3
    # Every row is twice in the sums: that changes no mean and no spread.
    spread = y.double().std(0, correction=0)
    fitted = full.map.transform(full.reduced(of)).double()
    near = (fitted - fitted.mean(0)) / spread
    _, _, directions = torch.linalg.svd(near, full_matrices=False)
    expected = near @ directions[:3].mT @ directions[:3] * spread + y.double().mean(0)
    carried = torch.cat(list(cut.transform(of).values()), 1).double()
    torch.testing.assert_close(carried, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("rank", [None, 2])
def test_stored_and_read_it_is_the_same_to_the_bit(rank: int | None) -> None:
    of = inputs(0)
    kept = {"keys.0": 2, "keys.1": 5, "tokens": None}
    reduced = {name: Reduction.of(of[name], many) for name, many in kept.items()}
    sums = moments(of, planted(of), reduced)
    fitted = fit_caches(sums, sums, reduced, SITES)
    made = fitted.map if rank is None else fitted.cut(rank)
    again = CacheMap.from_bytes(made.to_bytes())
    assert again.reads == made.reads == READS
    renamed = replace(made, writes={"values.10": 6, "keys.9": 4})
    assert list(CacheMap.from_bytes(renamed.to_bytes()).writes.items()) == [
        ("values.10", 6),
        ("keys.9", 4),
    ]
    for site, cells in again.transform(of).items():
        assert torch.equal(cells, made.transform(of)[site])
    assert again.to_bytes() == made.to_bytes()
    small = made.to_bytes(16)
    numbers = sum(tensor.numel() for tensor in safetensors_torch.load(small).values())
    assert len(made.to_bytes()) - len(small) == pytest.approx(2 * numbers, abs=64)
    for site, cells in CacheMap.from_bytes(small).transform(of).items():
        torch.testing.assert_close(cells, made.transform(of)[site], rtol=0.02, atol=1.0)


def test_a_cut_keeps_what_matters() -> None:
    of = inputs(0)
    y, reduced = planted(of, 5.0), everything(of)
    sums = moments(of, y, reduced)
    fitted = fit_caches(sums, sums, reduced, SITES)
    weights = {"keys.0": torch.full((6,), 100.0), "values.0": torch.ones(4)}
    errors = {}
    for name, chosen in (("even", None), ("keys", weights)):
        cells = fitted.cut(4, chosen).transform(of)
        errors[name] = {
            site: float((cells[site] - fitted.map.transform(of)[site]).square().sum())
            for site in SITES
        }
    assert errors["keys"]["keys.0"] < errors["even"]["keys.0"]
    assert errors["keys"]["values.0"] > errors["even"]["values.0"]


def test_a_map_within_so_many_bytes_has_the_greatest_rank_that_fits() -> None:
    of = inputs(0)
    reduced = everything(of)
    sums = moments(of, planted(of), reduced)
    fitted = fit_caches(sums, sums, reduced, SITES)
    sizes = [len(fitted.cut(rank).to_bytes(4)) for rank in range(1, 10)]
    assert sizes == sorted(sizes)
    for size in {*sizes, max(sizes) - 1}:
        found = fitted.within(size)
        assert isinstance(found.map, LowRank)
        assert found.map.rank == max(n for n, of in enumerate(sizes, 1) if of <= size)
        assert found.to_bytes() == fitted.cut(found.map.rank).to_bytes()
    with pytest.raises(FitError, match="no map of caches fits into 10 bytes"):
        fitted.within(10)


def test_rows_that_weigh_twice_are_rows_that_come_twice() -> None:
    x, y = normal(1, 60, 4), normal(2, 60, 3)
    weights = torch.arange(60) % 3
    weighed = CacheMoments.of(x, y, weights.float())
    twice = CacheMoments.of(x.repeat_interleave(weights, 0), y.repeat_interleave(weights, 0))
    for name in ("count", "sum_x", "sum_y", "xx", "xy", "yy"):
        found, expected = (torch.as_tensor(getattr(of, name)) for of in (weighed, twice))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_rank_that_cuts_off_nothing_leaves_the_map() -> None:
    of = inputs(0)
    sums = moments(of, planted(of), everything(of))
    fitted = fit_caches(sums, sums, everything(of), SITES)
    assert fitted.cut(10) is fitted.map


def test_fewer_inputs_are_fitted_from_the_same_sums() -> None:
    of = inputs(0)
    y, reduced = planted(of, 5.0), everything(of)
    sums = moments(of, y, reduced)
    some = {name: reduced[name] for name in ("keys.0", "keys.1")}
    fewer = sums.of_inputs(torch.arange(10))
    found = fit_caches(fewer, fewer, some, SITES).map
    alone = moments(of, y, some)
    expected = fit_caches(alone, alone, some, SITES).map
    torch.testing.assert_close(found.map.bias, expected.map.bias, rtol=1e-4, atol=1e-4)
    assert found.reads == {"keys.0": 5, "keys.1": 5}


def test_components_of_the_same_inputs_serve_for_other_cells() -> None:
    """What half-shuffled rows are fitted to, to the bit."""
    of, held = inputs(14), inputs(15)
    reduced = everything(of)
    plain, other = (
        (moments(of, cells(of), reduced), moments(held, cells(held), reduced))
        for cells in (planted, lambda each: planted(each).roll(50, 0))
    )
    known = fit_caches(*plain, reduced, SITES).components
    found = fit_caches(*other, reduced, SITES, components=known)
    expected = fit_caches(*other, reduced, SITES)
    assert found.map.to_bytes() == expected.map.to_bytes()
    assert (found.lambdas, found.held_out_r2) == (expected.lambdas, expected.held_out_r2)


def test_what_cannot_be_fitted_is_said() -> None:
    of = inputs(0)
    y, reduced = planted(of), everything(of)
    good = moments(of, y, reduced)
    with pytest.raises(FitError, match="at least one λ, each positive"):
        fit_caches(good, good, reduced, SITES, lambdas=())
    broken = moments(of, y * torch.nan, reduced)
    with pytest.raises(FitError, match="not finite"):
        fit_caches(broken, good, reduced, SITES)
    with pytest.raises(MapError, match="whole safetensors file"):
        CacheMap.from_bytes(b"no such thing")


def test_each_site_is_written_from_what_does_better_on_held_out_rows() -> None:
    of, held = inputs(0), inputs(50, 200)

    def cells(rows: dict[str, Tensor]) -> Tensor:
        keys = rows["keys.1"] @ normal(93, 5, 6)  # of one layer alone
        values = torch.cat((rows["keys.0"], rows["tokens"]), 1) @ normal(94, 8, 4)  # of others
        return torch.cat((keys, values), 1)

    few = {name: Reduction.of(rows, 4) for name, rows in of.items()}
    every = fit_caches(moments(of, cells(of), few), moments(held, cells(held), few), few, SITES)
    whole = Reduction.of(of["keys.1"])
    near = {}
    for site, columns in {"keys.0": slice(0, 6), "values.0": slice(6, 10)}.items():
        sums = (
            CacheMoments.of(whole(rows["keys.1"]), cells(rows)[:, columns]) for rows in (of, held)
        )
        near[site] = fit_caches(
            next(sums), next(sums), {"keys.1": whole}, {site: SITES[site]}, NEAR_LAMBDAS
        )
    made, r2 = nearer(every, near)
    assert list(made.near) == ["keys.0"]
    assert list(made.writes) == ["values.0"]
    assert r2 == {"keys.0": near["keys.0"].held_out_r2["keys.0"], "values.0": r2["values.0"]}
    assert r2["values.0"] == every.held_out_r2["values.0"]
    again = CacheMap.from_bytes(made.to_bytes())
    found, other = made.transform(held), every.map.transform(held)
    assert again.reads == made.reads
    for site, part in again.transform(held).items():
        assert torch.equal(part, found[site])
    torch.testing.assert_close(found["keys.0"], cells(held)[:, :6], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found["values.0"], other["values.0"])
    # Where all sites have one of their own, nothing else is read.
    alone, _ = nearer(every, {"keys.0": near["keys.0"], "values.0": replace_r2(near["values.0"])})
    assert alone.reads == {"keys.1": 5}


def replace_r2(fitted: FittedCaches) -> FittedCaches:
    """As if it had done best of all."""
    return replace(fitted, held_out_r2=dict.fromkeys(fitted.held_out_r2, 2.0))
