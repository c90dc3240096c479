"""The folder, as the plain class it is: sums, shards that are whole or not there, and fits.

Shapes: n rows that both models have, ds and dt their widths.
"""

import json
import socket
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch
from sklearn.linear_model import Ridge

from actors.comparing import Comparison
from actors.exchange import Exchange, ShardLost, shared_rows
from actors.folder import (
    FitOrder,
    Folder,
    Keep,
    SitePair,
    report_address,
)
from alignment.fitters import FITTERS
from alignment.maps import Affine, map_from_bytes
from alignment.moments import Moments
from alignment.similarity import Similarity, compare
from cluster.storage import DirectoryStore, address
from tests.actors.folding import (
    NARROW,
    PAIR,
    RIDGE,
    SHARD,
    WIDE,
    Both,
    aligned,
    batch,
    fold_all,
    fold_shards,
    order,
)

Array = Any  # the stubs of scikit-learn do not know NumPy's arrays


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def of(store: DirectoryStore, to: str = SHARD) -> tuple[Moments, torch.Tensor]:
    tensors = safetensors_torch.load(store.get(to))
    return Moments.from_tensors(tensors), tensors["shuffled_xy"]


@settings(max_examples=20)
@given(count=st.integers(1, 5), seed=st.integers(0, 99), swapped=st.booleans())
def test_moments_of_batches_are_those_of_all_their_rows(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, swapped: bool
) -> None:
    store = DirectoryStore(tmp_path_factory.mktemp("store"))
    batches = [batch(number, seed) for number in range(count)]
    # It is by their names that models are told apart, not by their order.
    given_as = [(y, x) for x, y in batches] if swapped else batches
    fold_all(Folder(store), given_as)
    found, _ = of(store)
    rows = [aligned(both) for both in batches]
    x, y = (torch.cat(side).double() for side in zip(*rows, strict=True))
    expected = Moments.of(x, y)
    assert found.count == expected.count == len(x)
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(found.tensors()[name], tensor, rtol=1e-5, atol=1e-4)


def test_only_rows_that_both_models_have_and_in_the_order_of_the_text() -> None:
    both = batch(0)
    in_source, in_target = shared_rows(*both)
    rows = both[0].rows[in_source]
    assert np.array_equal(rows, both[1].rows[in_target])
    assert np.array_equal(rows, np.intersect1d(both[0].rows, both[1].rows))
    assert 0 < len(rows) < min(len(each.rows) for each in both)


def test_rows_of_two_batches_are_never_put_side_by_side() -> None:
    with pytest.raises(AssertionError, match=r"^batches 0/0 and 0/1 do not meet$"):
        shared_rows(batch(0)[0], batch(1)[1])


def test_a_shard_is_written_when_it_is_whole_and_not_before(store: DirectoryStore) -> None:
    folder, batches = Folder(store), [batch(number) for number in range(3)]
    fold_all(folder, batches)
    other = address("another shard")
    for index, both in enumerate(batches):
        assert not store.has(other)
        told = folder.fold(Keep(index, index == 2, ((PAIR, other),)), *both)
        assert told == len(both[0].rows)
    assert store.get(other) == store.get(SHARD)


def test_every_pair_of_a_batch_has_its_own_sums(store: DirectoryStore) -> None:
    wide, narrow = batch(0)
    third = replace(narrow, model="third", points={"mlp.2": narrow.points["residual.0"] * 2})
    pairs = (
        (PAIR, address("first")),
        (SitePair("wide", "residual.1", "third", "mlp.2"), address("second")),
        (SitePair("third", "mlp.2", "narrow", "residual.0"), address("third")),
    )
    Folder(store).fold(Keep(0, True, pairs), wide, narrow, third)
    plain, doubled = of(store, address("first"))[0], of(store, address("second"))[0]
    torch.testing.assert_close(doubled.xy, 2 * plain.xy)
    within = of(store, address("third"))[0]
    assert within.count == len(narrow.rows)
    torch.testing.assert_close(within.xy, 2 * within.yy)


def test_a_batch_out_of_order_is_a_lost_shard(store: DirectoryStore) -> None:
    folder, batches = Folder(store), [batch(number) for number in range(4)]
    with pytest.raises(ShardLost, match=r"^batch 1 of a shard came after 0 others$"):
        fold_all(folder, batches, start=1)
    fold_all(folder, batches[:2])  # a shard of two, whole: nothing of it is left open
    with pytest.raises(ShardLost):
        fold_all(folder, batches, start=2)
    folder.fold(Keep(0, False, ((PAIR, address("open")),)), *batches[0])
    with pytest.raises(ShardLost, match=r"^batch 2 of a shard came after 1 others$"):
        folder.fold(Keep(2, False, ((PAIR, address("open")),)), *batches[2])
    assert not store.has(address("open"))


@pytest.mark.parametrize("lost_after", [1, 2, 3])
def test_folding_again_after_a_loss_gives_the_same_bits(
    store: DirectoryStore, lost_after: int
) -> None:
    batches = [batch(number) for number in range(4)]
    fold_all(Folder(store), batches)
    again = address("again")
    lost = Folder(store)
    for index in range(lost_after):
        lost.fold(Keep(index, False, ((PAIR, again),)), *batches[index])
    restarted = Folder(store)
    with pytest.raises(ShardLost):
        fold_all(restarted, batches, again, start=lost_after)
    assert not store.has(again)
    # The one that is left begins again where it had stopped, or a new one from nothing.
    for folder, to in ((restarted, again), (lost, address("once more"))):
        fold_all(folder, batches, to)
        assert store.get(to) == store.get(SHARD)


# --- fits


@pytest.fixture
def shards(store: DirectoryStore) -> tuple[str, ...]:
    return fold_shards(store)


def array(tensor: torch.Tensor) -> Array:
    return tensor.double().numpy()


def all_rows(numbers: Iterable[int], reverse: bool) -> tuple[Array, Array]:
    """Source and target rows of those batches."""
    x, y = (array(torch.cat(side)) for side in zip(*map(aligned, map(batch, numbers)), strict=True))
    return (y, x) if reverse else (x, y)


def fitted(store: DirectoryStore, made: FitOrder) -> tuple[Affine, dict[str, Any]]:
    """The map of an order, carried out, and its report."""
    Folder(store).fit(made)
    ((_, to),) = made.maps
    found = map_from_bytes(store.get(to))
    assert isinstance(found, Affine)
    return found, json.loads(store.get(report_address(to)))


def ridge(x: Array, y: Array, told: dict[str, Any]) -> Any:
    """Scikit-learn's answer with the penalty that was chosen."""
    return Ridge(alpha=told["chosen"]["lambda"] * float(x.var(0).mean()) * len(x)).fit(x, y)


@pytest.mark.parametrize("reverse", [False, True])
def test_maps_of_both_directions_agree_with_scikit_learn(
    store: DirectoryStore, shards: tuple[str, ...], reverse: bool
) -> None:
    found, told = fitted(store, order(shards, reverse))
    x, y = all_rows(range(2 * len(shards)), reverse)
    oracle = ridge(x, y, told)
    np.testing.assert_allclose(array(found.weight), oracle.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(array(found.bias), oracle.intercept_, rtol=1e-3, atol=1e-3)
    assert told["rows"] == len(x)
    assert told["fitter"] == "ridge"
    deviations = y.std(0)
    # Torch takes the lower of the two middle values, if there are two.
    median = np.quantile(deviations, 0.5, method="lower")
    assert told["target_spread"] == pytest.approx(median * len(deviations) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_held_out_r2_is_that_of_shards_that_were_left_out(
    store: DirectoryStore, shards: tuple[str, ...], reverse: bool
) -> None:
    made = order(shards, reverse)
    _, told = fitted(store, made)
    error = spread = 0.0
    for fold in range(made.folds):
        held = [n for n in range(2 * len(shards)) if n // 2 % made.folds == fold]
        x, y = all_rows(set(range(2 * len(shards))) - set(held), reverse)
        held_x, held_y = all_rows(held, reverse)
        error += ((ridge(x, y, told).predict(held_x) - held_y) ** 2).sum()
        spread += ((held_y - y.mean(0)) ** 2).sum()
    assert told["held_out_r2"] == pytest.approx(1 - error / spread, abs=1e-4)
    assert told["held_out_r2"] > 0.5


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_paired_at_random_predict_nothing(
    store: DirectoryStore, shards: tuple[str, ...], reverse: bool
) -> None:
    true, true_report = fitted(store, order(shards, reverse))
    seen = []
    for shuffle in range(4):
        control, told = fitted(store, order(shards, reverse, shuffle))
        assert -0.2 < told["held_out_r2"] < 0.05
        assert control.weight.norm() < 0.2 * true.weight.norm()
        # The rows and their spread are the true ones: what is wrong with it is the pairing alone.
        for name in ("rows", "target_spread"):
            assert told[name] == pytest.approx(true_report[name])
        seen.append(control.to_bytes())
    assert len(set(seen)) > 1  # seeds are different draws
    again = replace(order(shards, reverse, 3), maps=((RIDGE, address("again", reverse)),))
    assert fitted(store, again)[0].to_bytes() == seen[3]


def test_every_fitter_of_an_order_has_its_map_and_report(
    store: DirectoryStore, shards: tuple[str, ...]
) -> None:
    applying = [of() for of in FITTERS.values() if of().applies(WIDE, NARROW)]
    maps = tuple((recipe, address(recipe.name)) for recipe in applying)
    Folder(store).fit(FitOrder(shards, 3, False, None, maps))
    scores = {}
    for recipe, to in maps:
        assert map_from_bytes(store.get(to)).target_width == NARROW
        told = json.loads(store.get(report_address(to)))
        assert told["fitter"] == recipe.name
        assert told["hyperparameters"] == json.loads(json.dumps(asdict(recipe)))
        scores[recipe.name] = told["held_out_r2"]
    assert scores["ridge"] > scores["procrustes"] > scores["pad_truncate"]


def test_fitting_again_changes_nothing(store: DirectoryStore, shards: tuple[str, ...]) -> None:
    made = order(shards, False)
    fitted(store, made)
    place = store.path(made.maps[0][1])
    before = (place.read_bytes(), place.stat().st_mtime_ns)
    fitted(store, made)
    assert (place.read_bytes(), place.stat().st_mtime_ns) == before


# --- comparisons

LAYERS = 3


def layered(number: int) -> Both:
    """Every layer of both models at a batch."""
    models = []
    for each, width in zip(batch(number), (WIDE, NARROW), strict=True):
        rng = np.random.default_rng([number, width])
        base = next(iter(each.points.values()))
        points = {
            f"residual.{layer}": base + layer * rng.standard_normal(base.shape, dtype=np.float32)
            for layer in range(LAYERS)
        }
        models.append(replace(each, points=points))
    return models[0], models[1]


def comparison(rows: int) -> Comparison:
    sites = tuple(f"residual.{layer}" for layer in range(LAYERS))
    return Comparison("wide", "narrow", sites, sites, rows, 5, 20, 3, address("compared", rows))


def keep_all(folder: Folder, batches: list[Both]) -> None:
    for index, both in enumerate(batches):
        folder.keep(index, Exchange(), *both)


@pytest.mark.parametrize("rows", [100, 10_000])
def test_comparing_what_was_kept_is_comparing_the_rows(store: DirectoryStore, rows: int) -> None:
    folder, batches = Folder(store), [layered(number) for number in range(3)]
    # What is there at the first batch belongs to an attempt that failed.
    keep_all(folder, [layered(number) for number in (7, 8)])
    keep_all(folder, batches)
    wanted = comparison(rows)
    folder.compare([wanted])

    def gather(side: int, site: str) -> torch.Tensor:
        kept = [both[side].points[site][shared_rows(*both)[side]] for both in batches]
        return torch.from_numpy(np.concatenate(kept)[:rows])

    expected = compare(
        [gather(0, site) for site in wanted.source_sites],
        [gather(1, site) for site in wanted.target_sites],
        k=5,
        permutations=20,
        seed=3,
    )
    found = Similarity.from_bytes(store.get(wanted.to))
    assert found.rows == expected.rows == len(gather(0, "residual.0"))
    assert found.to_bytes() == expected.to_bytes()


def test_models_compared_together_are_each_pair_alone(store: DirectoryStore) -> None:
    """Some over rows of their own, and more than are compared at once."""
    pool = [layered(number) for number in range(2)]
    names = [f"model {number}" for number in range(6)]
    batches = []
    for wide, _ in pool:
        fewer = {site: of[1:] for site, of in wide.points.items()}
        like = [replace(wide, model=name) for name in names[:5]]
        batches.append([*like, replace(wide, model=names[5], rows=wide.rows[1:], points=fewer)])
    sites = tuple(f"residual.{layer}" for layer in range(LAYERS))
    wanted = [
        Comparison(*both, sites, sites, 100, 5, 20, 3, address("together", list(both)))
        for both in combinations(names, 2)
    ]
    folder = Folder(store)
    for index, models in enumerate(batches):
        folder.keep(index, Exchange(), *models)
    for each in wanted:
        folder.compare([each])
    alone = [store.get(each.to) for each in wanted]
    for each in wanted:
        store.path(each.to).unlink()
    folder.compare(wanted)
    assert [store.get(each.to) for each in wanted] == alone


def test_what_is_kept_is_a_copy(store: DirectoryStore) -> None:
    folder, batches = Folder(store), [layered(number) for number in range(3)]
    keep_all(folder, batches)
    folder.compare([comparison(100)])
    before = store.get(comparison(100).to)
    store.path(comparison(100).to).unlink()
    for both in batches:  # as when the object store gives their memory to something else
        for each in both:
            each.rows[:] = 0
            for points in each.points.values():
                points[:] = 0
    folder.compare([comparison(100)])
    assert store.get(comparison(100).to) == before


def test_a_kept_batch_out_of_order_is_lost(store: DirectoryStore) -> None:
    folder = Folder(store)
    folder.keep(0, Exchange(), *layered(0))
    with pytest.raises(ShardLost, match=r"^batch 2 came after 1 others$"):
        folder.keep(2, Exchange(), *layered(2))
    with pytest.raises(ShardLost, match=r"^batch 1 came after 0 others$"):
        Folder(store).keep(1, Exchange(), *layered(1))


def test_a_folder_tells_whether_it_sees_a_store(store: DirectoryStore) -> None:
    store.put(SHARD, b"seen")
    assert Folder(store).blind_on(SHARD) is None
    assert Folder(store).blind_on(address("not there")) == socket.gethostname()
