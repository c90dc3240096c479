"""The machines that a cluster may grow by: what ray_cluster.yaml names, and what those are.

Facts and prices of instance types are in node_types.yaml beside this file, with their sources.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cluster.placement import GIB, Node, Request
from cluster.yaml_file import read_yaml

FACTS = Path(__file__).with_name("node_types.yaml")
CLUSTER_FILE = Path(__file__).resolve().parents[1] / "ray_cluster.yaml"
ON_DEMAND = "on-demand"
# What Ray keeps for its object store is not open to actors.
ACTORS_SHARE = 0.7


class NodeTypeError(ValueError):
    """A cluster file that cannot be read, or an instance type that nothing is known of."""


@dataclass(frozen=True)
class NodeType:
    """One kind of machine. Sizes of one node; `tflops` (bf16, dense) and memory of one GPU.

    `most` is how many of them the cluster may have. `market` is "on-demand" or "spot"; the price
    is that on demand, whatever the market: that of spot changes by the hour.
    """

    name: str
    instance: str
    market: str
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
    known = _facts()
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
        options = kind["node_config"].get("InstanceMarketOptions", {})
        market = options.get("MarketType", ON_DEMAND)
        found.append(_node_type(name, instance, market, kind["max_workers"], known[instance]))
    return tuple(found)


def would_do(request: Request, cluster_file: Path = CLUSTER_FILE) -> str:
    """The end of an error line: the cheapest type of node that could hold the request, empty.

    Nothing where the cluster file is not there, as on a node that was only shipped the code.
    """
    if not cluster_file.is_file():
        return ""
    try:
        kinds = [kind for kind in node_types(cluster_file) if kind.market == ON_DEMAND]
    except NodeTypeError as error:
        return f"; {error}"
    fitting = [kind for kind in kinds if request.fits(node_of(kind))]
    if fitting:
        kind = min(fitting, key=lambda kind: kind.usd_per_hour)
        return f"; a node of type {_described(kind)} would do"
    nearest = request.nearest(node_of(kind) for kind in kinds)
    largest = next(kind for kind in kinds if node_of(kind) == nearest)
    return f"; no node type of {cluster_file.name} would do: the largest is {_described(largest)}"


def node_of(kind: NodeType) -> Node:
    """One machine of the kind, empty."""
    return Node(kind.cpus, kind.gpus, ACTORS_SHARE * kind.memory_gib * GIB, kind.gpu)


def _described(kind: NodeType) -> str:
    size = f"{kind.cpus} CPU, {kind.gpus} GPU, {kind.memory_gib:g} GiB"
    return f"{kind.name} ({kind.instance}: {size})"


def gpu_memory_gib(accelerator: str) -> float | None:
    """Memory of one GPU of this kind, by Ray's name for it; None where nothing is known of it."""
    sizes = {kind.get("gpu"): kind.get("gpu_memory_gib") for kind in _facts().values()}
    return sizes.get(accelerator)


def _node_type(name: str, instance: str, market: str, most: int, facts: dict[str, Any]) -> NodeType:
    return NodeType(
        name=name,
        instance=instance,
        market=market,
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


@cache
def _facts() -> dict[str, Any]:
    return _mapping(FACTS)


def _mapping(path: Path) -> dict[str, Any]:
    raw = read_yaml(path, NodeTypeError)
    if not isinstance(raw, dict):
        raise NodeTypeError(f"{path}: a mapping is needed")
    return raw
