"""The sample of rows that a shard keeps, and what of it fitters are given."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch

from actors.folder import (
    SAMPLE_ROWS_A_BATCH,
    SAMPLE_ROWS_IN_ALL,
    FitOrder,
    Folder,
    Keep,
    _quota,
    report_address,
)
from alignment.fitted import Fitted
from alignment.fitters.anchor_locked import AnchorLocked
from alignment.fitters.mlp import Mlp
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows
from cluster.storage import DirectoryStore, address
from tests.actors.folding import PAIR, SHARD, aligned, batch, fold_all, fold_shards, order

QUICK_MLP = Mlp(lambdas=(0.1,), decays=(0.1,), steps=(1, 30))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def shards(store: DirectoryStore) -> tuple[str, ...]:
    return fold_shards(store)


def sample(store: DirectoryStore, to: str) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = safetensors_torch.load(store.get(to))
    return tensors["sample_x"], tensors["sample_y"]


@pytest.mark.parametrize("rows", [20, 60, 300])
def test_a_shard_keeps_some_rows_of_each_batch_evenly_spaced(
    store: DirectoryStore, rows: int
) -> None:
    batches = [batch(number, rows=rows) for number in range(3)]
    fold_all(Folder(store), batches)
    found = sample(store, SHARD)
    expected = []
    for both in batches:
        shared = aligned(both)
        few = min(SAMPLE_ROWS_A_BATCH, len(shared[0]))
        at = [number * len(shared[0]) // few for number in range(few)]
        expected.append([side[at] for side in shared])
    for side in (0, 1):
        assert found[side].dtype == torch.float32
        assert torch.equal(found[side], torch.cat([each[side] for each in expected]))


@dataclass(frozen=True)
class Seen(AnchorLocked):
    """Sets down the rows that it is given."""

    seen: ClassVar[list[FoldedRows | None]] = []

    def fit(self, moments: FoldedMoments, rows: FoldedRows | None = None) -> Fitted:
        self.seen.append(rows)
        return super().fit(moments, rows)


def given_rows(store: DirectoryStore, made: FitOrder) -> FoldedRows:
    Folder(store).fit(replace(made, maps=((Seen(), address("seen")),)))
    found = Seen.seen.pop()
    assert found is not None
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_fitters_are_given_the_sample_by_folds(
    store: DirectoryStore, shards: tuple[str, ...], reverse: bool
) -> None:
    found = given_rows(store, order(shards, reverse))
    assert len(found.folds) == 3
    for fold, rows in enumerate(found.folds):
        kept = [sample(store, to) for to in shards[fold::3]]
        x, y = (torch.cat(side) for side in zip(*kept, strict=True))
        assert torch.equal(rows.x, y if reverse else x)
        assert torch.equal(rows.y, x if reverse else y)


def test_for_a_control_map_the_sample_is_paired_at_random_too(
    store: DirectoryStore, shards: tuple[str, ...]
) -> None:
    true = given_rows(store, order(shards, False))
    drawn = [given_rows(store, order(shards, False, seed)) for seed in (0, 1, 0)]
    for fold in range(3):
        own, first, other, again = (each.folds[fold] for each in (true, *drawn))
        assert torch.equal(first.y, again.y)
        assert not torch.equal(first.y, other.y)
        assert torch.equal(first.x, own.x)
        assert (first.y == own.y).all(1).float().mean() < 0.1
        assert torch.equal(first.y.sort(0).values, own.y.sort(0).values)
    mlp = replace(order(shards, False, 0), maps=((QUICK_MLP, address("mlp")),))
    Folder(store).fit(mlp)
    assert json.loads(store.get(report_address(address("mlp"))))["held_out_r2"] < 0.05


@given(shards=st.integers(1, 3 * SAMPLE_ROWS_IN_ALL))
@settings(max_examples=20)
def test_the_rows_given_to_fitters_are_bounded_in_all(shards: int) -> None:
    quotas = [_quota(number, shards) for number in range(shards)]
    assert sum(quotas) == SAMPLE_ROWS_IN_ALL
    assert max(quotas) - min(quotas) <= 1


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shuffle", [None, 5])
def test_routers_decisions_stay_with_their_rows(
    store: DirectoryStore, reverse: bool, shuffle: int | None
) -> None:
    """Here the decision is the first feature of the row of the sparse model."""
    pair = replace(PAIR, target_router="router.0")
    for number in range(6):
        source, target = batch(number)
        target.points["router.0"] = target.points["residual.0"][:, :1]
        to = address("shard", number)
        Folder(store).fold(Keep(0, True, ((pair, to),)), source, target)
    shards = tuple(address("shard", number) for number in range(6))
    for fold in given_rows(store, order(shards, reverse, shuffle)).folds:
        rows, routes = (fold.x, fold.x_routes) if reverse else (fold.y, fold.y_routes)
        assert routes is not None
        assert torch.equal(routes, rows[:, :1])
        assert (fold.y_routes if reverse else fold.x_routes) is None
