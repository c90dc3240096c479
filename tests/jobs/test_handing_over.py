"""A sweep that hands caches over, undisturbed and disturbed: the same numbers, to the bit."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.mending import PARTS
from alignment.cache_map import CacheMap
from cluster.storage import DirectoryStore
from evaluation.matrix import Matrix
from jobs.config import read_run_file
from jobs.names import ROOT
from tests.sweeps import PATIENCE, Driver, Result, assert_same, command, environment

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PAIRS = [("tiny-llama", "tiny-gemma"), ("tiny-gemma", "tiny-llama")]
Run = Callable[..., Path]


def caches_alone(run: Path, caches: dict[str, Any]) -> Path:
    """A run file of nothing but caches."""
    sections = yaml.safe_load(run.read_text())
    del sections["steering"]
    run.write_text(yaml.safe_dump(sections | {"kv_cache": caches}))
    return run


# Of the session: what is marked long comes last.
@pytest.fixture(scope="session")
def swept(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Run, caches: dict[str, Any]
) -> Result:
    run = caches_alone(tiny_run(tmp_path_factory.mktemp("swept")), caches)
    return Result.of(run, Driver(run).finish())


@pytest.fixture
def again(tmp_path: Path, tiny_run: Run, caches: dict[str, Any], swept: Result) -> Path:
    """The same in another home, tracked beside it: to be tracked it must be equal."""
    uri = read_run_file(swept.run).tracking_uri
    return caches_alone(tiny_run(tmp_path / "home", tracking={"uri": uri}), caches)


def test_a_run_of_caches_alone_leaves_a_cell_for_each_pair(swept: Result) -> None:
    matrix = Matrix.from_json(json.dumps(swept.matrix))
    assert [(cell.source, cell.target, cell.cargo) for cell in matrix.cells] == [
        (*pair, "kv_cache") for pair in PAIRS
    ]
    for cell in matrix.cells:
        assert cell.cargo == "kv_cache"
        assert cell.texts == 6
        assert {content.name for content in cell.contents} == {"tales", "replies"}
        assert [each.share for each in cell.again] == [0.25]
        assert [each.name for each in cell.small] == ["small", "trained"]
        assert [each.characters for each in cell.lengths] == [45, 90]
        assert tuple(each.part for each in cell.losses) == PARTS
        assert all(0 < each.map_bytes < cell.map_bytes for each in cell.small)
        assert 0.2 < cell.held_out_r2 <= 1
    assert {like["source"] for like in swept.matrix["similarities"]} == {"tiny-llama", "tiny-gemma"}
    page = (swept.run.parent / "runs/tiny/index.html").read_text()
    assert "kv cache" in page.lower()


def test_a_map_of_caches_is_registered_and_pulled(swept: Result, tmp_path: Path) -> None:
    name = "tiny-llama--tiny-gemma--kv_cache--continuation@champion"
    uri, to = read_run_file(swept.run).tracking_uri, tmp_path / "pulled"
    pull = command("pull", name, "--to", str(to), "--uri", uri)
    subprocess.run(pull, cwd=ROOT, env=environment(), check=True, timeout=PATIENCE)
    pulled = next(to.rglob("cache_map.safetensors")).read_bytes()
    kept = DirectoryStore(swept.run.parent / "store").get(swept.matrix["cells"][0]["map_address"])
    assert CacheMap.from_bytes(pulled).to_bytes() == CacheMap.from_bytes(kept).to_bytes()


def test_a_second_run_reads_nothing(swept: Result, start: Callable[[Path], Driver]) -> None:
    finished = Result.of(swept.run, start(swept.run).finish())
    assert "reading caches" not in finished.said
    assert "handing caches over, 24 of 24 there already" in finished.said
    assert_same(finished, swept)


@pytest.mark.long
@pytest.mark.parametrize(
    "process", ["caches-tiny-llama-tiny-gemma.fold", "host-tiny-gemma.hand_over"]
)
def test_a_process_that_is_lost_changes_no_number(
    swept: Result, again: Path, start: Callable[[Path], Driver], process: str
) -> None:
    driver = start(again)
    driver.wait_for(lambda: driver.doing(process)).kill()
    finished = Result.of(again, driver.finish())
    assert "was lost" in finished.said or "hand_over" in process  # a host's call is made again
    assert_same(finished, swept)


@pytest.mark.long
def test_a_driver_that_is_killed_goes_on_where_it_was(
    swept: Result, again: Path, start: Callable[[Path], Driver]
) -> None:
    driver = start(again)
    driver.wait_to_hear("handing caches over")
    driver.kill()
    said = start(again).finish()
    assert "reading caches" not in said
    assert_same(Result.of(again, said), swept)
