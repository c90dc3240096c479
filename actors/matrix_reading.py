"""What the matrices of a model read and return at the rows of an anchor batch.

Shapes: n rows, i and o what a matrix reads and returns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from actors.anchors import AnchorBatch, rows
from actors.architectures import Role
from actors.encoding import encode
from actors.engine import Engine
from actors.exchange import Activations
from actors.matrices import places
from actors.reading import NotFinite, activations

# Matrices of a block that read the same, by the name of what they read.
READ_BY: dict[str, tuple[Role, ...]] = {
    "attention": ("queries", "keys", "values"),
    "heads": ("out",),
    "mlp": ("gate", "up"),
    "neurons": ("down",),
}
_READ: dict[str, str] = {role: name for name, roles in READ_BY.items() for role in roles}


def sides(place: str) -> tuple[str, str]:
    """The names of what the matrix of a place reads and returns: `reads.mlp.3`, `writes.up.3`."""
    role, _, layer = place.partition(".")
    return f"reads.{_READ[role]}.{layer}", f"writes.{place}"


@torch.inference_mode()
def matrix_rows(
    engine: Engine,
    fingerprint: str,
    batch: AnchorBatch,
    wanted: Sequence[str],
    sites: Sequence[str] = (),
) -> Activations:
    """What some places read [n, i] and return [n, o] at every row of the batch, by `sides`; none of
    an expert, which does not read every row. What `sites` hold is read in the same pass, which ends
    at the highest of them, if there are any.

    Raises:
        NotFinite: one of them holds NaN or Inf.
    """
    encoded = encode(engine, batch.texts)
    row_ids, texts, tokens = rows(batch, encoded.spans)
    at = (torch.from_numpy(texts), torch.from_numpy(tokens))
    shape = encoded.ids.shape

    def keep(held: Tensor) -> Tensor:
        return held.reshape(*shape, -1)[at].float().cpu()  # some parts see all texts as one

    points: dict[str, np.ndarray] = {}
    with _reading(engine, wanted, keep) as found:
        if sites:
            points |= activations(engine, fingerprint, batch, sites).points
        else:
            engine.states(encoded.ids)
    points |= {name: held.numpy() for name, held in found.items()}
    for name, held in points.items():
        if not np.isfinite(held).all():
            raise NotFinite(f"batch {batch.id}, {name}: rows are not finite")
    return Activations(fingerprint, batch.id, row_ids, points)


@contextmanager
def _reading(
    engine: Engine, wanted: Sequence[str], keep: Callable[[Tensor], Tensor]
) -> Iterator[Mapping[str, Tensor]]:
    """Fill a mapping in the pass that runs inside."""
    found: dict[str, Tensor] = {}
    where = places(engine)

    def hook(place: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        reads, writes = sides(place)

        def record(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if reads not in found:
                found[reads] = keep(args[0])
            found[writes] = keep(output[..., where[place].rows.to(output.device)])

        return record

    with ExitStack() as hooks:
        for place in wanted:
            layer = engine.model.get_submodule(where[place].module)
            hooks.callback(layer.register_forward_hook(hook(place)).remove)
        yield found
