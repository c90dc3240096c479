"""The sweep as a job of a cluster: the command of the help, against a local head node."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from jobs.config import read_run_file
from jobs.names import ROOT
from tests.head import JOINING, PATH, head_node, place
from tests.sweeps import PATIENCE, environment

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The http address of a head node."""
    with place() as at, head_node(at, "--include-dashboard=true", "--num-cpus=3"):
        url, deadline = f"http://{at.dashboard}", time.monotonic() + PATIENCE
        while not answers(url):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url


def answers(url: str) -> bool:
    with suppress(URLError), urlopen(f"{url}/api/version", timeout=60):
        return True
    return False


def test_a_sweep_is_submitted_as_the_help_says(
    dashboard: str, tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    run = tiny_run(tmp_path / "home", maps={"roles": ["representation"], "fitters": ["ridge"]})
    submitted = subprocess.run(
        ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs", "sweep", run],
        cwd=ROOT,
        env=environment(**JOINING, PATH=PATH, RAY_ADDRESS=dashboard),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert submitted.returncode == 0, submitted.stdout
    assert "succeeded" in submitted.stdout
    # It ran here, in processes of this cluster, and not in a Ray of its own.
    with urlopen(f"{dashboard}/api/v0/actors?detail=0", timeout=60) as answer:
        actors = json.load(answer)["data"]["result"]["result"]
    names = sorted(str(actor["name"]).rpartition(" ")[0] for actor in actors)
    assert {"folder-layers", "folder-moments", "host-tiny-gemma", "host-tiny-llama"} <= set(names)
    folder = read_run_file(run).folder
    assert f"page     file://{folder}/index.html" in submitted.stdout
    page = (folder / "index.html").read_text()
    assert "tiny-llama" in page
    matrix = json.loads((folder / "matrix.json").read_text())
    assert [(cell["source"], cell["target"]) for cell in matrix["cells"]] == [
        ("tiny-llama", "tiny-gemma"),
        ("tiny-gemma", "tiny-llama"),
    ]
