"""Ray's own autoscaler (v2) at work: the nodes it starts are processes of this machine."""

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray._raylet import GcsClient  # pyrefly: ignore[missing-module-attribute]
from ray.core.generated.autoscaler_pb2 import (
    GetClusterStatusReply,  # pyrefly: ignore[missing-module-attribute]
    NodeStatus,  # pyrefly: ignore[missing-module-attribute]
)

from jobs.config import read_run_file
from jobs.names import ROOT
from tests.head import JOINING, LOOPBACK, head_node, place
from tests.sweeps import PATIENCE, command, environment, run_script

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
OURS = JOINING | LOOPBACK
IDLE_SECONDS = 6
HEAD = "f" * 56  # the number that the fake provider expects of the head node
# A cloud that has no spot machine to give. Nodes of one machine would share the directory of the
# shipped code, and each that joins unpacks it anew under the feet of the others.
PROVIDER = """
from uuid import uuid4
from ray._private import ray_constants
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

class Provider(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(self, node_config, tags, *rest):
        if tags["ray-user-node-type"].endswith("spot"):
            raise RuntimeError("InsufficientInstanceCapacity")
        super().create_node_with_resources_and_labels(node_config, tags, *rest)

    def _create_node_with_resources_and_labels(self, *details):
        ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME = f"code-{uuid4().hex}"
        super()._create_node_with_resources_and_labels(*details)
"""
ASK = """
import sys
from cluster.placement import InsufficientResources, Request
from cluster.room import make_room
from cluster.session import session

cpus, gpus, ranks, patience = map(int, sys.argv[2:])
with session(sys.argv[1]):
    try:
        make_room(Request("host-x", cpus, gpus, ranks=ranks), timeout=3, patience=patience)
    except InsufficientResources as error:
        print(error)
"""


def configuration(address: str) -> dict[str, object]:
    def kind(most: int, **resources: int) -> dict[str, object]:
        small = {"object_store_memory": 80 * 2**20}
        workers = {"min_workers": 0, "max_workers": most}
        return {"resources": resources | small, "node_config": {}, **workers}

    empty = ("auth", "docker", "file_mounts")
    lists = (
        "initialization_commands",
        "setup_commands",
        "head_setup_commands",
        "worker_setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
        "cluster_synced_files",
        "rsync_exclude",
        "rsync_filter",
    )
    return {
        "cluster_name": "fake",
        "max_workers": 4,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            "type": "external",
            "module": "provider_without_spot.Provider",
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": HEAD,
        },
        "head_node_type": "ray.head.default",  # so the fake provider calls it
        "available_node_types": {
            "ray.head.default": kind(0, CPU=2),
            "gpu": kind(3, CPU=2, GPU=1),
            "gpu-4x-spot": kind(1, CPU=2, GPU=4),
        },
        "file_mounts_sync_continuously": False,
        **{name: {} for name in empty},
        **{name: [] for name in lists},
    }


@pytest.fixture(scope="module")
def growing() -> Iterator[str]:
    """The address of a head node without GPUs whose autoscaler may start nodes with them."""
    with place() as at:
        (at.directory / "provider_without_spot.py").write_text(PROVIDER)
        grows = at.directory / "cluster.json"
        grows.write_text(json.dumps(configuration(at.address)))
        options = ("--include-dashboard=false", "--num-cpus=2", "--num-gpus=0")
        its = {
            "PYTHONPATH": str(at.directory),
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        }
        with head_node(at, *options, f"--autoscaling-config={grows}", **its):
            yield at.address


def nodes(address: str) -> Counter[str]:
    """How many nodes of each type there are now."""
    reply = GetClusterStatusReply.FromString(GcsClient(address).get_cluster_status(timeout_s=10))
    alive = (NodeStatus.RUNNING, NodeStatus.IDLE)
    states = reply.cluster_resource_state.node_states
    return Counter(node.ray_node_type_name for node in states if node.status in alive)


def ask(address: str, cpus: int, gpus: int, ranks: int, patience: int) -> tuple[str, float]:
    start = time.monotonic()
    ran = run_script(ASK, address, *map(str, (cpus, gpus, ranks, patience)), **OURS)
    return ran.stdout.strip(), time.monotonic() - start


def test_what_no_node_type_could_hold_is_refused_within_a_minute(growing: str) -> None:
    said, seconds = ask(growing, cpus=1, gpus=2, ranks=4, patience=600)
    assert seconds < 60
    assert said.startswith("host-x asks for 4 x (1 CPU, 2 GPU) on one node; the cluster is ")
    assert "its largest node lacks 2 CPU, 8 GPU, and its autoscaler has no larger one" in said
    assert said.endswith(
        "; a node of type a100-8x (p4d.24xlarge: 96 CPU, 8 GPU, 1152 GiB) would do"
    )
    assert "\n" not in said


def test_nodes_that_the_cloud_does_not_give_are_named(growing: str) -> None:
    said, _ = ask(growing, cpus=1, gpus=4, ranks=1, patience=8)
    assert "host-x asks for 1 CPU, 4 GPU on one node, and none had that free within 8 s" in said
    assert said.endswith("could not be started: gpu-4x-spot (why is in the head's monitor.log)")
    assert "\n" not in said


def test_a_sweep_grows_the_cluster_and_idleness_shrinks_it(
    growing: str, tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    run = tiny_run(
        tmp_path / "home",
        cluster={"address": growing, "cpus_per_model": 0.5, "gpus_per_model": 1},
        maps={"roles": ["representation"], "fitters": ["ridge"]},
    )
    assert nodes(growing)["gpu"] == 0
    sweep = subprocess.Popen(
        command("sweep", str(run)),
        cwd=ROOT,
        env=environment(**OURS),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    most = 0
    with sweep:
        assert sweep.stdout is not None
        said: list[str] = []
        listener = threading.Thread(target=lambda: said.extend(sweep.stdout))
        listener.start()
        while sweep.poll() is None:
            most = max(most, nodes(growing)["gpu"])
            time.sleep(0.5)
        listener.join()
    assert sweep.returncode == 0, "".join(said)
    assert most == 2
    matrix = json.loads((read_run_file(run).folder / "matrix.json").read_text())
    assert [(cell["source"], cell["target"]) for cell in matrix["cells"]] == [
        ("tiny-llama", "tiny-gemma"),
        ("tiny-gemma", "tiny-llama"),
    ]
    deadline = time.monotonic() + PATIENCE
    while nodes(growing)["gpu"]:
        assert time.monotonic() < deadline, nodes(growing)
        time.sleep(0.5)
