"""Ways through other models: paths of several hops, of which each keeps a share of what crosses."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import networkx

Hops = Mapping[tuple[str, str], float]  # what is kept from one node to another, as a share
_END = ("", -1)  # after the target, by however many hops it was reached
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Path:
    """Nodes from the source to the target, and the product of what the hops between them keep."""

    nodes: tuple[str, ...]
    kept: float


def best_path(kept: Hops, source: str, target: str, most: int) -> Path | None:
    """The path of two hops up to `most` (3 at the most) whose hops keep the largest product; of
    equals one with fewer. None without any.

    A hop that keeps nothing leads nowhere, and one that keeps more than all keeps all, so that no
    path gains by going round: products are compared as sums of -log (Dijkstra 1959), between nodes
    that are told apart by how many hops lead there.
    """
    graph = networkx.DiGraph()
    graph.add_nodes_from([(source, 0), _END])
    for (one, other), share in kept.items():
        if share <= 0 or other == source or one == target:
            continue
        for step in [0] if one == source else range(1, most):
            if (step, other) != (0, target):
                graph.add_edge((one, step), (other, step + 1), cost=-math.log(min(1.0, share)))
    for step in range(2, most + 1):
        graph.add_edge((target, step), _END, cost=step * _ROUNDING)
    try:
        way = networkx.dijkstra_path(graph, (source, 0), _END, weight="cost")
    except networkx.NetworkXNoPath:
        return None
    nodes = tuple(node for node, _ in way[:-1])
    return Path(nodes, along(kept, nodes))


def along(kept: Hops, nodes: Iterable[str]) -> float:
    """The product of what each hop keeps, none of them more than all."""
    return math.prod(max(0.0, min(1.0, kept.get(hop, 0.0))) for hop in pairwise(nodes))


def hub(kept: Hops) -> str:
    """The node through which most is kept on average, over all pairs of other ones."""
    nodes = sorted({node for hop in kept for node in hop})

    def through(middle: str) -> float:
        others = [node for node in nodes if node != middle]
        return sum(
            along(kept, (one, middle, other)) for one in others for other in others if one != other
        )

    return max(nodes, key=through)
