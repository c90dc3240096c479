"""What is asked of a cluster, what it has, and a plain word when the two do not fit."""

from collections.abc import Iterable
from dataclasses import dataclass

GIB = 2**30


class InsufficientResources(ValueError):
    """The cluster cannot place what was asked: one line with what is asked and what there is."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: CPU cores, GPUs, and bytes of memory open to actors."""

    cpus: float
    gpus: float
    memory_bytes: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU, {self.gpus:g} GPU, {self.memory_bytes / GIB:.1f} GiB"


@dataclass(frozen=True)
class ClusterFacts:
    """The machines of a cluster and where it is reached."""

    nodes: tuple[Node, ...]
    address: str

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def memory_gib(self) -> float:
        return sum(node.memory_bytes for node in self.nodes) / GIB

    def __str__(self) -> str:
        total = Node(self.cpus, self.gpus, self.memory_gib * GIB)
        return f"{len(self.nodes)} node(s) with {total} in all"


@dataclass(frozen=True)
class Request:
    """What one process asks for. It must fit on one node; memory is in bytes."""

    name: str
    num_cpus: float = 1
    num_gpus: float = 0
    memory_bytes: int | None = None

    def bundle(self) -> dict[str, float]:
        """The same as the resources of a Ray bundle (which may name no resource it has none of)."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory_bytes or 0}
        return {resource: amount for resource, amount in wanted.items() if amount}

    def fits(self, node: Node) -> bool:
        """Whether the node, were it empty, could hold this."""
        return (
            self.num_cpus <= node.cpus
            and self.num_gpus <= node.gpus
            and (self.memory_bytes or 0) <= node.memory_bytes
        )

    def __str__(self) -> str:
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / GIB:.1f} GiB"
        return f"{self.name} asks for {self.num_cpus:g} CPU, {self.num_gpus:g} GPU{memory}"


def check(requests: Iterable[Request], facts: ClusterFacts) -> None:
    """Refuse at once what these machines can never hold, each alone on a node and all together.

    It sees only the machines that are there now: on a cluster that grows by itself, let
    `Gang.launch` wait instead. Raises InsufficientResources.
    """
    requests = list(requests)
    for request in requests:
        if not any(request.fits(node) for node in facts.nodes):
            largest = max(facts.nodes, key=lambda node: (node.gpus, node.cpus, node.memory_bytes))
            raise InsufficientResources(
                f"{request} on one node; the cluster is {facts}, the largest node has {largest}"
            )
    together = Request(
        name=f"all of {', '.join(request.name for request in requests)} together",
        num_cpus=sum(request.num_cpus for request in requests),
        num_gpus=sum(request.num_gpus for request in requests),
        memory_bytes=sum(request.memory_bytes or 0 for request in requests) or None,
    )
    if not together.fits(Node(facts.cpus, facts.gpus, facts.memory_gib * GIB)):
        raise InsufficientResources(f"{together}; the cluster is {facts}")
