"""The machines that a cluster may grow by: what ray_cluster.yaml names, and what those are.

Facts and prices of instance types are in node_types.yaml beside this file, with their sources.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.yaml_file import read_yaml

FACTS = Path(__file__).with_name("node_types.yaml")


class NodeTypeError(ValueError):
    """A cluster file that cannot be read, or an instance type that nothing is known of."""


@dataclass(frozen=True)
class NodeType:
    """One kind of machine. Sizes of one node; `tflops` (bf16, dense) and memory of one GPU.

    `most` is how many of them the cluster may have.
    """

    name: str
    instance: str
    most: int
    cpus: int
    memory_gib: float
    gpus: int
    gpu: str | None
    gpu_memory_gib: float
    tflops: float
    usd_per_hour: float
    as_of: str


def node_types(cluster_file: Path) -> tuple[NodeType, ...]:
    """The worker types of a Ray cluster file, in its order.

    Raises:
        NodeTypeError: the file has no node types, or nothing is known of one.
    """
    kinds = _mapping(cluster_file).get("available_node_types")
    if not isinstance(kinds, dict):
        raise NodeTypeError(f"{cluster_file}: it has no available_node_types")
    known = _mapping(FACTS)
    found = []
    for name, kind in kinds.items():
        if not kind.get("max_workers"):
            continue  # the head
        instance = kind.get("node_config", {}).get("InstanceType")
        if instance not in known:
            raise NodeTypeError(
                f"{cluster_file}: nothing is known of {instance!r} ({name}); "
                f"known are {', '.join(known)}; add it to {FACTS.name}"
            )
        found.append(_node_type(name, instance, kind["max_workers"], known[instance]))
    return tuple(found)


def _node_type(name: str, instance: str, most: int, facts: dict[str, Any]) -> NodeType:
    return NodeType(
        name=name,
        instance=instance,
        most=most,
        cpus=facts["cpus"],
        memory_gib=facts["memory_gib"],
        gpus=facts["gpus"],
        gpu=facts.get("gpu"),
        gpu_memory_gib=facts.get("gpu_memory_gib", 0.0),
        tflops=facts.get("bf16_tflops", 0.0),
        usd_per_hour=facts["usd_per_hour"],
        as_of=facts["as_of"],
    )


def _mapping(path: Path) -> dict[str, Any]:
    raw = read_yaml(path, NodeTypeError)
    if not isinstance(raw, dict):
        raise NodeTypeError(f"{path}: a mapping is needed")
    return raw
