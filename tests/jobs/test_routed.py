"""A sweep between a dense model and a sparse one, with maps that look at the router."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.folder import report_address
from alignment.maps import Affine, Mixture, map_from_bytes
from cluster.storage import DirectoryStore
from tests.sweeps import Driver, Result, change, work_of

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
FITTERS = ["ridge", "average_expert", "dominant_expert", "routed"]


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_run: Callable[..., Path],
    new_checkpoint: Callable[..., Path],
    tiny_models: dict[str, Path],
) -> Result:
    """The sparse model speaks the vocabulary of the dense one."""
    del tiny_models
    home = tmp_path_factory.mktemp("routed")
    run = tiny_run(home, maps={"roles": ["representation"], "fitters": FITTERS})
    given = yaml.safe_load(run.read_text())
    texts = Path(given["anchors"]["corpora"][0]["file"]).read_text().splitlines()
    at = new_checkpoint(home / "mixtral", "mixtral", texts, 500, 48)
    sparse: dict[str, Any] = {"name": "tiny-mixtral", "directory": str(at)}
    change(run, models=[given["models"][0], sparse])
    return Result.of(run, Driver(run).finish())


def test_maps_of_experts_are_ways_in_both_directions(swept: Result) -> None:
    assert len(swept.matrix["cells"]) == 2
    for cell in swept.matrix["cells"]:
        assert [way["name"] for way in cell["ways"]] == ["direct", "scaled", *FITTERS]
        assert all(way["held_out_r2"] is not None for way in cell["ways"][2:])


def test_what_is_fitted_has_the_experts_of_the_sparse_model(swept: Result) -> None:
    store = DirectoryStore(swept.run.parent / "store")
    experts = set()
    for hop in work_of(swept.run).hops:
        fitted = {name: map_from_bytes(store.get(to)) for name, to in hop.maps.items()}
        assert isinstance(fitted["average_expert"], Affine)
        assert isinstance(fitted["dominant_expert"], Affine)
        assert isinstance(fitted["routed"], Mixture)
        report = json.loads(store.get(report_address(hop.maps["routed"])))
        assert report["facts"]["experts"] == len(fitted["routed"].gate)
        experts.add(report["facts"]["experts"])
    assert len(experts) == 1
