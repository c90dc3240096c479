"""A sweep in which maps are also trained through their targets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.maps import Linear, map_from_bytes
from cluster.storage import DirectoryStore
from tests.sweeps import Driver, Result, change

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Result:
    run = tiny_run(tmp_path_factory.mktemp("trained"), maps={"roles": ["representation"]})
    steering: dict[str, Any] = yaml.safe_load(run.read_text())["steering"]
    change(run, steering=steering | {"trained": True})
    return Result.of(run, Driver(run).finish())


def test_the_trained_map_is_one_more_way_and_tried_last(swept: Result) -> None:
    store = DirectoryStore(swept.run.parent / "store")
    for cell in swept.matrix["cells"]:
        *others, trained = cell["ways"]
        assert trained["name"] == "trained"
        assert trained["held_out_r2"] is None  # it is not judged by rows
        assert [way["name"] for way in others] == ["direct", "scaled", "ridge", "procrustes"]
        used = map_from_bytes(store.get(cell["map_address"]))
        assert isinstance(used, Linear)


def test_what_was_trained_is_not_trained_again(swept: Result) -> None:
    again = Driver(swept.run).finish()
    assert "training maps" in again
    assert "loading models ..." not in again
