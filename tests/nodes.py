"""Ray's multi-node test cluster, each node a raylet of its own, in a process beside the tests."""

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # pyrefly: ignore[untyped-import]

from tests.head import JOINING, LOOPBACK
from tests.sweeps import environment

# Makes a node for each line of JSON that it reads, and answers with the number of its raylet.
_KEEPER = """
import json, sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for line in sys.stdin:
    node = cluster.add_node(**json.loads(line))
    raylet = node.all_processes["raylet"][0].process
    print(json.dumps([cluster.address, raylet.pid]), flush=True)
cluster.shutdown()
"""
# A node that is lost is noticed in two seconds, not in half a minute.
_HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
_STORE = 80 * 2**20


class Nodes:
    """A cluster that grows node by node: the first is its head."""

    def __init__(self) -> None:
        # Not below tmp_path: the path of a Unix socket has at most 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="isthmus-nodes-", dir="/tmp"))
        (self._directory / "ray").mkdir()  # where it notes what cluster it has
        own = {"RAY_TMPDIR": str(self._directory)}
        self._said = (self._directory / "keeper.txt").open("w+")
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER],
            env=environment(**JOINING, **LOOPBACK, **own),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self.address = ""
        self.raylets: list[psutil.Process] = []

    def add(self, cpus: float) -> psutil.Process:
        """One more node; its raylet."""
        settings: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": _STORE}
        if not self.raylets:
            settings |= {"temp_dir": str(self._directory), "include_dashboard": False}
            settings |= {"_system_config": _HEALTH}
        else:
            # Nodes of one machine would share the directory of the shipped code, and each that
            # joins unpacks it anew under the feet of the others.
            settings |= {"runtime_env_dir_name": f"code-{len(self.raylets)}"}
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(settings) + "\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline()
        assert answer, self._told()
        self.address, raylet = json.loads(answer)
        self.raylets.append(psutil.Process(raylet))
        return self.raylets[-1]

    def _told(self) -> str:
        self._said.seek(0)
        return self._said.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        started = psutil.Process(self._keeper.pid).children(recursive=True)
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(30)
        for process in (self._keeper, *started):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self._keeper.wait()
        psutil.wait_procs(started, timeout=30)
        assert self._keeper.stdout is not None
        self._keeper.stdout.close()
        self._said.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def kill(raylet: psutil.Process) -> None:
    """End a whole node at once, as a machine that loses its power."""
    node = [raylet, *raylet.children(recursive=True)]
    for process in node:
        process.suspend()  # so that none of them sees another end
    for process in node:
        process.kill()
