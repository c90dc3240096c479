"""The cluster file is one that Ray accepts, and everything it names is known here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.session import get_session
from botocore.validate import ParamValidator

from cluster.node_types import (
    NodeType,
    NodeTypeError,
    gpu_memory_gib,
    node_types,
    would_do,
)
from cluster.placement import GIB, Request

ROOT = Path(__file__).parents[2]
CLUSTER_FILE = ROOT / "ray_cluster.yaml"
RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")  # as Ray spells them
# All that the AWS provider of Ray 2.60 reads, in its config.py and node_provider.py. Ray itself
# passes over any other.
PROVIDER = {
    "type",
    "region",
    "availability_zone",
    "cache_stopped_nodes",
    "use_internal_ips",
    "key_pair",
    "security_group",
    "aws_credentials",
    "cloudwatch",
}


def cluster() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER_FILE.read_text())


@pytest.fixture(scope="module")
def known() -> dict[str, NodeType]:
    return {node.name: node for node in node_types(CLUSTER_FILE)}


def test_every_worker_type_of_the_cluster_is_known(known: dict[str, NodeType]) -> None:
    named = cluster()["available_node_types"]
    assert list(known) == [name for name in named if name != cluster()["head_node_type"]]
    for name, node in known.items():
        assert node.instance == named[name]["node_config"]["InstanceType"]
        assert node.most == named[name]["max_workers"]
        assert node.usd_per_hour > 0
        assert node.cpus > 0
        assert node.memory_gib > 0
        on_gpus = (node.gpu is not None, node.gpu_memory_gib > 0, node.tflops > 0)
        assert set(on_gpus) == {node.gpus > 0}
        assert (node.as_of[:2], len(node.as_of.split("-"))) in {("20", 2), ("20", 3)}


def test_what_a_node_type_promises_to_ray_is_what_the_machine_has(
    known: dict[str, NodeType],
) -> None:
    for name, node in known.items():
        promised = dict(cluster()["available_node_types"][name]["resources"])
        assert promised.pop("CPU") == node.cpus
        assert promised.pop("GPU", 0) == node.gpus
        assert promised == ({f"accelerator_type:{node.gpu}": 1} if node.gpu else {})


def markets() -> list[str]:
    return get_session().get_service_model("ec2").shape_for("MarketType").metadata["enum"]


def faults(whole: dict[str, Any]) -> list[str]:
    """What is wrong, and yet passes both the schema of Ray and the shapes of AWS."""
    kinds = whole["available_node_types"]
    found = [f"provider: {key}" for key in whole["provider"] if key not in PROVIDER]
    if whole["head_node_type"] not in kinds:
        found.append(f"head_node_type: {whole['head_node_type']}")
    for name, kind in kinds.items():
        if not 0 <= kind["min_workers"] <= kind["max_workers"] <= whole["max_workers"]:
            found.append(f"{name}: {kind['min_workers']} to {kind['max_workers']} workers")
        for resource in kind["resources"]:
            if resource not in RESOURCES and not resource.startswith("accelerator_type:"):
                found.append(f"{name}: {resource}")
        options = kind["node_config"].get("InstanceMarketOptions")
        if options and options["MarketType"] not in markets():
            found.append(f"{name}: {options['MarketType']}")
    return found


def test_the_cluster_file_has_no_fault_that_the_schemas_pass_over() -> None:
    whole = cluster()
    kinds = whole["available_node_types"]
    assert faults(whole) == []
    # Nothing runs beside the control plane, and nothing is paid for that is not asked for.
    assert kinds[whole["head_node_type"]]["resources"] == {"CPU": 0}
    assert {kind["min_workers"] for kind in kinds.values()} == {0}
    assert whole["idle_timeout_minutes"] > 0


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (("provider", "regoin"), "us-east-1", "provider: regoin"),
        (("head_node_type",), "haed", "head_node_type: haed"),
        (("available_node_types", "cpu", "min_workers"), 5, "cpu: 5 to 4 workers"),
        (("available_node_types", "cpu", "max_workers"), 99, "cpu: 0 to 99 workers"),
        (("available_node_types", "a10g", "resources"), {"GPUS": 1}, "a10g: GPUS"),
        (
            ("available_node_types", "a10g-spot", "node_config", "InstanceMarketOptions"),
            {"MarketType": "spott"},
            "a10g-spot: spott",
        ),
    ],
)
def test_a_fault_that_the_schemas_pass_over_is_found(
    path: tuple[str, ...], value: object, found: str
) -> None:
    # Through JSON: YAML shares what has an anchor.
    whole = json.loads(json.dumps(cluster()))
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert faults(whole) == [found]


def test_every_gpu_type_comes_on_demand_and_as_spot(known: dict[str, NodeType]) -> None:
    machines = {
        market: {(node.instance, node.most) for node in known.values() if node.market == market}
        for market in ("on-demand", "spot")
    }
    with_gpus = {(node.instance, node.most) for node in known.values() if node.gpus}
    assert machines["spot"] == with_gpus
    assert machines["on-demand"] >= with_gpus
    # Spot first: of nodes that would do equally well, Ray takes that of the higher priority.
    kinds = cluster()["available_node_types"]
    for name, node in known.items():
        assert kinds[name].get("priority", 0) == (1 if node.market == "spot" else 0)
    sizes = {(node.gpus, round(node.gpu_memory_gib)) for node in known.values()}
    assert {(1, 22), (8, 40), (8, 79)} <= sizes  # 24, 40 and 80 GB on the label


def test_the_head_may_start_nodes_and_the_workers_may_not() -> None:
    head = cluster()["head_node_type"]
    for name, kind in cluster()["available_node_types"].items():
        profile = {"Name": "isthmus-head" if name == head else "isthmus-worker"}
        assert kind["node_config"]["IamInstanceProfile"] == profile


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("a", 1, 1), "; a node of type a10g (g5.xlarge: 4 CPU, 1 GPU, 16 GiB) would do"),
        (
            Request("a", 1, 1, 20 * GIB, ranks=8),
            "; a node of type a100-8x (p4d.24xlarge: 96 CPU, 8 GPU, 1152 GiB) would do",
        ),
        # The price decides, not the order.
        (Request("a", 12), "; a node of type cpu (m7i.8xlarge: 32 CPU, 0 GPU, 128 GiB) would do"),
        (
            Request("a", 1, 1, ranks=9),
            "; no node type of ray_cluster.yaml would do: "
            "the largest is h100-8x (p5.48xlarge: 192 CPU, 8 GPU, 2048 GiB)",
        ),
    ],
)
def test_the_node_type_that_would_do_is_the_cheapest(request_: Request, said: str) -> None:
    assert would_do(request_, CLUSTER_FILE) == said


def test_without_a_cluster_file_no_node_type_is_named(tmp_path: Path) -> None:
    assert would_do(Request("a"), tmp_path / "none.yaml") == ""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("cluster_name: x")
    assert would_do(Request("a"), wrong) == f"; {wrong}: it has no available_node_types"


def test_the_memory_of_a_gpu_is_known_by_its_name_in_ray(known: dict[str, NodeType]) -> None:
    for node in known.values():
        if node.gpu:
            assert gpu_memory_gib(node.gpu) == node.gpu_memory_gib
    assert gpu_memory_gib("T4") is None


def test_what_is_mounted_is_there() -> None:
    for path in cluster()["file_mounts"].values():
        assert (ROOT / path).exists()


def test_ray_accepts_the_cluster_file(tmp_path: Path) -> None:
    # In a process of its own: it needs no Ray that runs, and loads much.
    check = (
        "import sys, yaml\n"
        "from pathlib import Path\n"
        "from ray.autoscaler._private.util import prepare_config, validate_config\n"
        "from jsonschema import ValidationError\n"
        "whole = prepare_config(yaml.safe_load(Path(sys.argv[1]).read_text()))\n"
        "try: validate_config(whole)\n"
        "except ValidationError as error: print('refused', error.message)\n"
        "else: print(*whole['available_node_types'])\n"
    )

    def said(file: Path) -> str:
        command = [sys.executable, "-W", "error", "-c", check, str(file)]
        ran = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        return ran.stdout.splitlines()[-1]

    assert said(CLUSTER_FILE) == " ".join(cluster()["available_node_types"])
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(cluster() | {"idle_timeout_minuts": 10}))
    assert "idle_timeout_minuts" in said(wrong)


def test_the_launcher_of_aws_accepts_every_node() -> None:
    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    assert shape is not None
    for kind in cluster()["available_node_types"].values():
        asked = kind["node_config"] | {"MinCount": 1, "MaxCount": 1}
        found = ParamValidator().validate(asked, shape)
        assert not found.has_errors(), found.generate_report()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "not YAML: "),
        ("- a", "a mapping is needed"),
        ("", "a mapping is needed"),
        ("cluster_name: x", "it has no available_node_types"),
        (
            "available_node_types: {big: {max_workers: 2, node_config: {InstanceType: x9.huge}}}",
            "nothing is known of 'x9.huge' (big); known are m7i.2xlarge, ",
        ),
        (
            "available_node_types: {big: {max_workers: 2}}",
            "nothing is known of None (big); known are m7i.2xlarge, ",
        ),
    ],
)
def test_a_wrong_cluster_file_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(content)
    with pytest.raises(NodeTypeError) as caught:
        node_types(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: {said}")
    assert "\n" not in line


def test_a_cluster_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NodeTypeError, match=rf"^{tmp_path}/none\.yaml: no such file$"):
        node_types(tmp_path / "none.yaml")
