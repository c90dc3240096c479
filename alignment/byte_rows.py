"""A text as rows without any model: each of its bytes, and where it stands.

Shapes: t bytes of a text.
"""

import numpy as np

BYTES = 256
WAVES = 16  # of sines, and as many of cosines, from 2 to 4,096 bytes long
WIDTH = BYTES + 2 * WAVES


def byte_rows(text: str) -> np.ndarray:
    """One row for each byte in UTF-8, [t, WIDTH], float32: one of BYTES numbers is 1, and sines and
    cosines tell the place (Vaswani et al. 2017, arXiv 1706.03762)."""
    values = np.frombuffer(text.encode(), dtype=np.uint8)
    lengths = np.geomspace(2, 4096, WAVES)
    turns = 2 * np.pi * np.arange(len(values))[:, None] / lengths
    parts = (np.eye(BYTES)[values], np.sin(turns), np.cos(turns))
    return np.concatenate(parts, axis=1).astype(np.float32)
