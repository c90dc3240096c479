"""Ways through other models: paths of several hops, of which each keeps a share of what crosses."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import networkx

Hops = Mapping[tuple[str, str], float]  # what is kept from one node to another, as a share


@dataclass(frozen=True)
class Path:
    """Nodes from the source to the target, and the product of what the hops between them keep."""

    nodes: tuple[str, ...]
    kept: float


def best_path(kept: Hops, source: str, target: str, most: int) -> Path | None:
    """The path of two hops up to `most` whose hops keep the largest product; None without any.

    A hop that keeps nothing leads nowhere, and one that keeps more than all keeps all: products are
    compared as sums of -log, over which no path gains by going round (Dijkstra 1959; in order of
    length by Yen 1971).
    """
    graph = networkx.DiGraph()
    graph.add_nodes_from((source, target))
    for (one, other), share in kept.items():
        if share > 0 and (one, other) != (source, target):
            graph.add_edge(one, other, cost=-math.log(min(1.0, share)))
    try:
        paths = networkx.shortest_simple_paths(graph, source, target, weight="cost")
        nodes = next((path for path in paths if len(path) <= most + 1), None)
    except networkx.NetworkXNoPath:
        return None
    return None if nodes is None else Path(tuple(nodes), along(kept, nodes))


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
