"""The sweep as a job of a cluster: the command of the help, against a local head node."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.config import ROOT, read_run_file

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
PATIENCE = 240  # seconds; a quiet machine needs a tenth of it
BIN = Path(sys.executable).parent
PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--node-manager-port",
    "--object-manager-port",
    "--ray-client-server-port",
)


def environment(**added: str) -> dict[str, str]:
    """What a user's shell has, with the commands of this Python first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{BIN}:{os.environ['PATH']}"
    ours = {"PATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    return kept | ours | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} | added


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that Ray's workers do not choose from."""
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The http address of a head node on the loopback interface, with a directory of its own."""
    # Not below tmp_path: the path of a Unix socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="isthmus-head-", dir="/tmp"))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        "--include-dashboard=true",
        "--num-cpus=3",
        "--object-store-memory=100000000",
        f"--temp-dir={directory}",
        *(f"{name}={port}" for name, port in ports.items()),
    ]
    said = (tmp_path / "head.txt").open("w")
    with said:
        head = subprocess.Popen(command, env=environment(), stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(ports["--dashboard-port"]):
            assert head.poll() is None, (tmp_path / "head.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "head.txt").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{ports['--dashboard-port']}"
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


def test_a_sweep_is_submitted_as_the_help_says(
    dashboard: str, tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    run = tiny_run(tmp_path / "home", maps={"roles": ["representation"], "fitters": ["ridge"]})
    submitted = subprocess.run(
        ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs", "sweep", run],
        cwd=ROOT,
        env=environment(RAY_ADDRESS=dashboard),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert submitted.returncode == 0, submitted.stdout
    assert "succeeded" in submitted.stdout
    # It ran here, in processes of this cluster, and not in a Ray of its own.
    with urllib.request.urlopen(f"{dashboard}/api/v0/actors?detail=0", timeout=60) as answer:
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
