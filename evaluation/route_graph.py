"""Geometry of the picture of routes: models on a circle, and what each hop between two keeps.

Places are in a square of side SIDE.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluation.cargos import AnyCell
from evaluation.retention import Level
from evaluation.routes import Route

SIDE = 420
_RADIUS, _NODE, _BEND = 150.0, 15.0, 0.16
_HEAD = 9.0  # length of the head of an arrow


@dataclass(frozen=True)
class Node:
    """A model: its place, and how far down the middle of its name stands."""

    name: str
    x: float
    y: float
    label: float


@dataclass(frozen=True)
class Edge:
    """A hop: its curve, the head of its arrow, the level it has, and whether the path of a
    recommended route goes over it."""

    source: str
    target: str
    curve: str
    head: str
    level: Level
    routed: bool


@dataclass(frozen=True)
class RouteGraph:
    """All hops of one cargo and concept, and its routes."""

    cargo: str
    concept: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    routes: tuple[Route, ...]


def route_graphs(
    names: Sequence[str], cells: Sequence[AnyCell], routes: Sequence[Route]
) -> list[RouteGraph]:
    """One for each cargo and concept that has routes, in their order."""
    found = []
    for cargo, concept in dict.fromkeys(of.key[2:] for of in routes):
        of = tuple(each for each in routes if each.key[2:] == (cargo, concept))
        hops = [cell for cell in cells if cell.key[2:] == (cargo, concept)]
        taken = {hop for each in of if each.recommended for hop in pairwise(each.path)}
        nodes = _nodes(names)
        places = {node.name: (node.x, node.y) for node in nodes}
        edges = (_edge(cell, places, (cell.source, cell.target) in taken) for cell in hops)
        found.append(RouteGraph(cargo, concept, nodes, tuple(edges), of))
    return found


def _nodes(names: Sequence[str]) -> tuple[Node, ...]:
    """Clockwise, with none at the top: a name stands above or below its node, out of the way of
    hops."""
    found = []
    for number, name in enumerate(names):
        angle = math.pi * (2 * number - 1) / len(names) - math.pi / 2
        x, y = (SIDE / 2 + _RADIUS * of for of in (math.cos(angle), math.sin(angle)))
        below = 1 if y > SIDE / 2 + 1 else -1
        label = y + below * (_NODE + 12) + 4
        found.append(Node(name, round(x, 1), round(y, 1), round(label, 1)))
    return tuple(found)


def _edge(cell: AnyCell, places: dict[str, tuple[float, float]], routed: bool) -> Edge:
    """Bent to its right, so that both directions are seen; it ends at the rim of a node."""
    (x, y), (to_x, to_y) = places[cell.source], places[cell.target]
    bend_x = (x + to_x) / 2 - _BEND * (to_y - y)
    bend_y = (y + to_y) / 2 + _BEND * (to_x - x)
    begin = _towards((x, y), (bend_x, bend_y), _NODE)
    end = _towards((to_x, to_y), (bend_x, bend_y), _NODE + _HEAD)
    tip = _towards((to_x, to_y), (bend_x, bend_y), _NODE + 1)
    side = ((tip[1] - end[1]) * 0.5, (end[0] - tip[0]) * 0.5)
    corners = (tip, (end[0] + side[0], end[1] + side[1]), (end[0] - side[0], end[1] - side[1]))
    return Edge(
        cell.source,
        cell.target,
        f"M{begin[0]:.1f} {begin[1]:.1f}Q{bend_x:.1f} {bend_y:.1f} {end[0]:.1f} {end[1]:.1f}",
        " ".join(f"{corner[0]:.1f},{corner[1]:.1f}" for corner in corners),
        cell.level,
        routed,
    )


def _towards(
    start: tuple[float, float], goal: tuple[float, float], length: float
) -> tuple[float, float]:
    far = math.dist(start, goal)
    return (
        start[0] + (goal[0] - start[0]) * length / far,
        start[1] + (goal[1] - start[1]) * length / far,
    )
