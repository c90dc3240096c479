"""What matrices read and return, against the matrices themselves, in every family."""

import numpy as np
import torch
from torch.nn import functional

from actors.anchors import AnchorBatch
from actors.engine import Engine
from actors.matrices import places, weight
from actors.matrix_reading import matrix_rows, sides
from actors.reading import activations


def test_what_is_returned_is_made_of_what_is_read(engine: Engine, batch: AnchorBatch) -> None:
    where = {place: at for place, at in places(engine).items() if at.expert is None}
    read = matrix_rows(engine, "tiny", batch, list(where))
    assert read.rows.tolist() == activations(engine, "tiny", batch, ["residual.0"]).rows.tolist()
    for place, rows in where.items():
        reads, writes = (torch.from_numpy(read.points[side]) for side in sides(place))
        layer = engine.model.get_submodule(rows.module)
        held = dict(layer.named_parameters())
        bias = held["bias"][rows.rows] if "bias" in held else None
        made = functional.linear(reads, weight(engine, rows), bias)
        torch.testing.assert_close(made, writes, atol=1e-5, rtol=1e-4)
    assert len(read.points) == len({side for place in where for side in sides(place)})
    assert all(isinstance(each, np.ndarray) for each in read.points.values())
