"""Models that are never loaded together leave in the store what is folded and compared later."""

from pathlib import Path

import numpy as np
import pytest

from actors.comparing import Comparison
from actors.exchange import Activations, Exchange, Kept, exchanged
from actors.folder import Folder, Keep, SitePair
from cluster.storage import DirectoryStore, address

PAIR = SitePair("wide", "residual.1", "narrow", "residual.0")
SITES = ("residual.0", "residual.1", "residual.2")
COMPARISON = Comparison("wide", "narrow", SITES, SITES, 100, 5, 20, 3, address("compared"))
SHARD = address("a shard")
BATCHES = range(3)


def read(model: str, width: int, number: int) -> Activations:
    """Every layer of a model at a batch; it lacks some rows that another has."""
    rng = np.random.default_rng([width, number])
    rows = np.sort(rng.choice(70, 60, replace=False)).astype(np.int64)
    points = {site: rng.standard_normal((60, width), dtype=np.float32) for site in SITES}
    return Activations(model, f"0/{number}", rows, points)


def both(number: int) -> tuple[Activations, Activations]:
    return read("wide", 7, number), read("narrow", 5, number)


def kept(number: int, *sites: str) -> Kept:
    return Kept("wide", sites or SITES, address("kept", number))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "apart")


@pytest.fixture
def together(tmp_path: Path) -> DirectoryStore:
    """Where both models were there at every batch."""
    store = DirectoryStore(tmp_path / "together")
    folder = Folder(store)
    for number in BATCHES:
        folder.fold(Keep(number, number == BATCHES[-1], ((PAIR, SHARD),)), *both(number))
        folder.keep(number, Exchange(), *both(number))
    folder.compare([COMPARISON])
    return store


def test_what_is_taken_up_is_what_was_set_down(store: DirectoryStore) -> None:
    wide, narrow = both(0)
    assert exchanged(Exchange(leave=(kept(0),)), [wide], store) == {"wide": wide}
    models = exchanged(Exchange(take=(kept(0),)), [narrow], store)
    assert models.keys() == {"wide", "narrow"}
    found = models["wide"]
    assert (found.model, found.batch) == (wide.model, wide.batch)
    assert found.rows.dtype == wide.rows.dtype
    assert np.array_equal(found.rows, wide.rows)
    assert found.points.keys() == wide.points.keys()
    assert all(np.array_equal(found.points[site], wide.points[site]) for site in SITES)


def test_only_the_sites_that_are_wanted_are_set_down(store: DirectoryStore) -> None:
    wide, narrow = both(0)
    exchanged(Exchange(leave=(kept(0, "residual.1"),)), [wide], store)
    found = exchanged(Exchange(take=(kept(0, "residual.1"),)), [narrow], store)["wide"]
    assert found.points.keys() == {"residual.1"}


def test_moments_are_those_of_both_models_at_once(
    store: DirectoryStore, together: DirectoryStore
) -> None:
    first, second = Folder(store), Folder(store)
    for number in BATCHES:
        last, (wide, _) = number == BATCHES[-1], both(number)
        first.fold(Keep(number, last, (), Exchange(leave=(kept(number, "residual.1"),))), wide)
    for number in BATCHES:
        last, (_, narrow) = number == BATCHES[-1], both(number)
        exchange = Exchange(take=(kept(number, "residual.1"),))
        second.fold(Keep(number, last, ((PAIR, SHARD),), exchange), narrow)
    assert store.get(SHARD) == together.get(SHARD)


def test_similarities_are_those_of_both_models_at_once(
    store: DirectoryStore, together: DirectoryStore
) -> None:
    first, second = Folder(store), Folder(store)
    for number in BATCHES:
        first.keep(number, Exchange(leave=(kept(number),)), both(number)[0])
    for number in BATCHES:
        second.keep(number, Exchange(take=(kept(number),)), both(number)[1])
    second.compare([COMPARISON])
    assert store.get(COMPARISON.to) == together.get(COMPARISON.to)
