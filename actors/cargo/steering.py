"""Steering vectors: a direction in the residual stream that stands for a concept.

Shapes: ds and dt widths of source and target, k directions.

A vector is carried as a difference (`pushforward`, no bias) and injected at a length given in
units of the target's own spread at the site, so that native, carried and controls are equally long
and no native vector is needed to use a carried one.
"""

import numpy as np
import torch

from actors.sites import Injection
from alignment.maps import Map


def carry(vector: np.ndarray, by: Map) -> np.ndarray:
    """The vector [ds] as a direction of the target [dt]."""
    return by.pushforward(torch.from_numpy(vector)[None])[0].numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two directions of one width; 0 where one of them is zero."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def injection(site: str, direction: np.ndarray, spread: float, strength: float) -> Injection:
    """The direction at `strength` times `spread`, whatever its own length.

    Args:
        spread: length of a typical centred activation of the target at the site.
    """
    length = float(np.linalg.norm(direction))
    unit = direction / length if length else direction
    return Injection(site, (unit * spread).astype(np.float32), strength)


def random_directions(width: int, count: int, seed: int) -> np.ndarray:
    """`count` directions drawn evenly from the sphere, [k, width] float32: the plainest control."""
    drawn = np.random.default_rng(seed).standard_normal((count, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
