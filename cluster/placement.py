"""What is asked of a cluster, what it has, and what one lacks of the other."""

from collections.abc import Iterable
from dataclasses import dataclass

GIB = 2**30


class InsufficientResources(ValueError):
    """The cluster cannot place what was asked: one line with what is asked and what there is."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: CPU cores, GPUs, and bytes of memory open to actors.

    `accelerator` is the kind of its GPUs as Ray names it ("A100", "H100"), where Ray knows it.
    """

    cpus: float
    gpus: float
    memory_bytes: float
    accelerator: str | None = None

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU, {self.gpus:g} GPU, {self.memory_bytes / GIB:.1f} GiB"


def accelerator(resources: Iterable[str]) -> str | None:
    """The kind of GPU that a Ray node has, by the names of its resources."""
    prefix = "accelerator_type:"
    kinds = (name.removeprefix(prefix) for name in resources if name.startswith(prefix))
    return next(kinds, None)


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
    """What each of `ranks` processes asks for, all of them on one node; memory is in bytes."""

    name: str
    num_cpus: float = 1
    num_gpus: float = 0
    memory_bytes: int | None = None
    ranks: int = 1

    def bundles(self) -> list[dict[str, float]]:
        """The same as Ray bundles, one a rank (which may name no resource they have none of)."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory_bytes or 0}
        return [{name: count for name, count in wanted.items() if count}] * self.ranks

    def lacks(self, node: Node) -> str:
        """What the node, were it empty, has too little of: "2 CPU, 1.5 GiB", or nothing."""
        short = (
            (self.ranks * self.num_cpus - node.cpus, "{:g} CPU"),
            (self.ranks * self.num_gpus - node.gpus, "{:g} GPU"),
            ((self.ranks * (self.memory_bytes or 0) - node.memory_bytes) / GIB, "{:.1f} GiB"),
        )
        return ", ".join(shape.format(missing) for missing, shape in short if missing > 0)

    def fits(self, node: Node) -> bool:
        """Whether the node, were it empty, could hold all ranks."""
        return not self.lacks(node)

    def nearest(self, nodes: Iterable[Node]) -> Node:
        """The largest of the nodes in what this asks for most."""
        by_gpus = self.num_gpus > 0

        def size(node: Node) -> tuple[float, float, float]:
            return (node.gpus if by_gpus else 0, node.cpus, node.memory_bytes)

        return max(nodes, key=size)

    def __str__(self) -> str:
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / GIB:.1f} GiB"
        each = f"{self.num_cpus:g} CPU, {self.num_gpus:g} GPU{memory}"
        return f"{self.name} asks for " + (each if self.ranks == 1 else f"{self.ranks} x ({each})")
