"""Matrices on a real MLflow server whose artifacts lie in a real object store."""

import multiprocessing
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from evaluation.matrix import Matrix
from evaluation.tracking import CHAMPION, best, pull
from tests.deprecated import MLFLOW
from tests.object_server import Gateway, free_port, wait_for
from tests.tracking_bench import KEY, NAME, Bench

Maker = Callable[..., Matrix]
pytestmark = [*MLFLOW]


@pytest.fixture
def served(gateway: Gateway, tmp_path: Path) -> Iterator[Bench]:
    """A store behind http; who asks it has no key of the object store."""
    keys, bucket = gateway.environment(), gateway.bucket()
    port, log = free_port(), tmp_path / "server.log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"),
                *("--artifacts-destination", f"s3://{bucket}/isthmus"),
            ],
            env=os.environ | keys | {"MLFLOW_S3_ENDPOINT_URL": gateway.url},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    bench = Bench(tmp_path)
    bench.uri = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(f"{bench.uri}/health"), f"no answer of the server; see {log}")
        yield bench
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


def test_several_drivers_track_at_once_and_anybody_pulls(
    served: Bench, made_up: Maker, tmp_path: Path
) -> None:
    kept = (0.7, 0.93, 0.8)
    matrices = [made_up(2, address=str(at), first=of) for at, of in enumerate(kept)]
    served.files(matrices[0])
    context = multiprocessing.get_context("fork")
    drivers = [context.Process(target=served.track, args=(matrix,)) for matrix in matrices]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert [driver.exitcode for driver in drivers] == [0, 0, 0]
    again = [served.track(matrix) for matrix in matrices]
    assert len({each.run_id for each in again}) == len(kept)
    assert sorted(each.versions[NAME] for each in again) == ["1", "2", "3"], "nothing twice"
    assert len(served.runs(again[0])) == len(kept) * (1 + len(matrices[0].cells))
    assert again[0].link.startswith(f"{served.uri}/#/experiments/")
    champion = again[1].versions[NAME]
    assert served.champion() == champion
    source, target, cargo, _ = KEY
    assert best(served.uri, {"source": source, "target": target, "cargo": cargo}) == (
        NAME,
        champion,
    )
    got = pull(NAME, CHAMPION, uri=served.uri, to=tmp_path / "got")
    cargo_files = got / "artifacts" / "cargo"
    mine = served.files(matrices[0])[KEY] / "map.safetensors"
    assert (cargo_files / "map.safetensors").read_bytes() == mine.read_bytes()
    assert not (tmp_path / "mlartifacts").exists()


def test_a_driver_that_was_overtaken_leaves_the_champion_to_the_better(
    served: Bench, made_up: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    better, slow = (made_up(2, address=of, first=kept) for of, kept in (("a", 0.93), ("b", 0.8)))
    found, move = [], MlflowClient.set_registered_model_alias

    def overtaken(client: MlflowClient, name: str, alias: str, version: str) -> None:
        """Between what the slow one has seen and what it does, another does all of its own."""
        if not found:
            found.append("")  # whatever comes now is of the other driver
            found.append(served.track(better).versions[NAME])
        move(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", overtaken)
    served.track(slow)
    assert served.champion() == found[-1]


def test_an_alias_that_another_driver_makes_at_the_same_moment_is_moved_all_the_same(
    made_up: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two threads of a server may both find no alias and insert one: the database refuses one."""
    refused, move = [], MlflowClient.set_registered_model_alias

    def collide(client: MlflowClient, name: str, alias: str, version: str) -> None:
        move(client, name, alias, version)
        if not refused:
            refused.append(name)
            raise MlflowException("UNIQUE constraint failed", BAD_REQUEST)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", collide)
    bench = Bench(tmp_path)
    tracked = bench.track(made_up(2, address="a", first=0.8))
    assert refused == [NAME]
    assert bench.champion() == tracked.versions[NAME]
