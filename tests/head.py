"""A head node of Ray beside the tests, on the loopback interface, with ports of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]

from tests.sweeps import PATIENCE, environment

# What joins a cluster must know too: that no token is asked for.
JOINING = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
# A Ray that cannot be a cluster of several machines keeps to the loopback interface.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_BIN = Path(sys.executable).parent
PATH = f"{_BIN}:{os.environ['PATH']}"  # the commands of this Python first
_PORTS = (
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


@dataclass(frozen=True)
class Place:
    """Where a head node will be: its own directory, and the ports that it listens on."""

    directory: Path
    ports: dict[str, int]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['--port']}"

    @property
    def dashboard(self) -> str:
        return f"127.0.0.1:{self.ports['--dashboard-port']}"


@contextmanager
def place() -> Iterator[Place]:
    """Ports that nobody listens on, and a directory that goes at the end."""
    # Not below tmp_path: the path of a Unix socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="isthmus-head-", dir="/tmp"))
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _PORTS]
        numbers = [server.getsockname()[1] for server in servers]
    try:
        yield Place(directory, dict(zip(_PORTS, numbers, strict=True)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def head_node(at: Place, *options: str, **more: str) -> Iterator[None]:
    """A head node that runs, with more options of `ray start`, and more in its environment."""
    command = [
        str(_BIN / "ray"),
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        "--object-store-memory=100000000",
        f"--temp-dir={at.directory}",
        *(f"{name}={port}" for name, port in at.ports.items()),
        *options,
    ]
    log = at.directory / "head.txt"
    with log.open("w") as said:
        its = environment(**JOINING, **LOOPBACK, PATH=PATH, **more)
        head = subprocess.Popen(command, env=its, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        # Nodes that an autoscaler started do not end with it: all are known by the directory.
        started = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(f"{at.directory}/" in word for word in process.info["cmdline"] or ())
        ]
        head.send_signal(signal.SIGTERM)
        head.wait(60)
        for process in started:
            if process.is_running():
                process.kill()
        psutil.wait_procs(started, timeout=30)
