"""An adapter that is drawn and not trained."""

import torch

from actors.engine import Engine
from actors.matrices import places
from alignment.updates import Update


def drawn_adapter(engine: Engine, size: float) -> dict[str, Update]:
    """Of every place of a model, of rank 2."""
    torch.manual_seed(0)
    return {
        place: Update(size * torch.randn(len(at.rows), 2), torch.randn(2, at.inputs))
        for place, at in places(engine).items()
    }
