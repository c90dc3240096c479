"""Which layer of one model answers to which layer of another.

Layers are block indices from 0. Shapes: Ls source layers, Lt target layers.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Fraction of the way from the first block to the last.
ROLES = {"feature_extraction": 0.10, "representation": 0.60, "decision_making": 0.90}


def role_layer(role: str, num_layers: int) -> int:
    """The block, in [0, num_layers - 1], that lies nearest to a role's depth (halves go up).

    Depth runs from the first block (0) to the last (1), so that models of any length agree at
    both ends. ValueError names the roles when there is no such one.
    """
    assert num_layers > 0, f"a model of {num_layers} layers"
    if role not in ROLES:
        raise ValueError(f"no layer role '{role}': allowed are {', '.join(ROLES)}")
    return math.floor(ROLES[role] * (num_layers - 1) + 0.5)


def measured_pairing(similarity: Tensor) -> list[int]:
    """A source layer for each target layer, never going back, of greatest total similarity.

    Dynamic programming over a matrix [Ls, Lt]; ties go to the earlier source layer.
    """
    matrix = similarity.double()
    assert matrix.ndim == 2, f"similarity {matrix.shape} is no matrix"
    assert matrix.numel(), f"similarity {matrix.shape} holds no layer"
    best = torch.zeros(matrix.shape[0], dtype=torch.float64)  # best total ending at or before s
    came_from = []
    for column in matrix.mT:
        best, ends = _running_max(best + column)
        came_from.append(ends)
    layer, pairing = matrix.shape[0] - 1, []
    for ends in reversed(came_from):
        layer = ends[layer]
        pairing.append(layer)
    return pairing[::-1]


def depth_pairing(source_layers: int, target_layers: int) -> list[int]:
    """A source layer for each target layer: the one at the nearest share of the depth."""
    steps = max(target_layers - 1, 1)
    return [math.floor(t / steps * (source_layers - 1) + 0.5) for t in range(target_layers)]


def layer_shares(source_layers: int, target_layers: int) -> list[dict[int, float]]:
    """For each target layer, what share of each source layer's change it takes.

    Each source layer gives all of its change, to the two target layers at its share of the depth,
    more to the nearer one: none is left out, however unlike the depths are.
    """
    found: list[dict[int, float]] = [defaultdict(float) for _ in range(target_layers)]
    steps = max(source_layers - 1, 1)
    for layer in range(source_layers):
        below, beyond = divmod(layer * (target_layers - 1), steps)
        found[below][layer] += 1 - beyond / steps
        if beyond:
            found[below + 1][layer] += beyond / steps
    return [dict(each) for each in found]


@dataclass(frozen=True)
class Agreement:
    """How far a measured pairing is from the pairing by depth, in shares of the source's depth.

    `distance` is the mean over target layers; `chance` is what pairings drawn at random, never
    going back either, come to on average.
    """

    distance: float
    chance: float


def agreement(pairing: Sequence[int], source_layers: int, draws: int = 1000) -> Agreement:
    """Compare a pairing (a source layer for each target layer) with the one by depth."""
    depth = np.array(depth_pairing(source_layers, len(pairing)))
    generator = np.random.default_rng(0)
    random = np.sort(generator.integers(source_layers, size=(draws, len(pairing))), axis=1)
    span = max(source_layers - 1, 1)
    return Agreement(
        float(np.abs(np.array(pairing) - depth).mean() / span),
        float(np.abs(random - depth).mean() / span),
    )


def _running_max(totals: Tensor) -> tuple[Tensor, list[int]]:
    """Greatest total up to each source layer, and the earliest layer that has it."""
    best, ends = [], []
    for layer, total in enumerate(totals.tolist()):
        if not best or total > best[-1]:
            best.append(total)
            ends.append(layer)
        else:
            best.append(best[-1])
            ends.append(ends[-1])
    return torch.tensor(best, dtype=torch.float64), ends
