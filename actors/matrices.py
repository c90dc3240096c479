"""The matrices of a model that an adapter may change, and which of their rows have which role.

Shapes: h query heads, k KV heads, w width of a head.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from actors.architectures import ARCHITECTURES, Matrix, Role, UnknownArchitecture, known
from actors.module_tree import WHOLE, ModuleTree


class PartError(ValueError):
    """A model of which a process holds a part; one line says so."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Those of one role in one block: the layer's path from the model, and which of its outputs
    they are, int64 [o]. `inputs` is how many numbers the layer reads.

    Of an `expert`, one of so many, the path is that of the parameter that holds them all.
    """

    module: str
    rows: Tensor
    inputs: int
    expert: int | None = None


def outline(checkpoint: Path) -> ModuleTree:
    """The modules of a model without its weights.

    Raises:
        UnknownArchitecture: its family is not in the table.
    """
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    family = config.model_type
    if family not in ARCHITECTURES:
        raise UnknownArchitecture(f"{family}: where an adapter would go is not known; {known()}")
    with torch.device("meta"):
        return ModuleTree(AutoModelForCausalLM.from_config(config), ARCHITECTURES[family])


def places(tree: ModuleTree) -> dict[str, Rows]:
    """Every place of a model, as `queries.0`: a role, and the block from 0 on. Of an expert its
    number comes after: `gate.0.3`.

    Raises:
        PartError: the model lies over several ranks, or its weights are elsewhere.
    """
    if tree.held is not WHOLE:
        raise PartError(
            "adapters are put on models that one process holds whole: give this one a single rank"
        )
    found = {}
    for layer, block in enumerate(tree.blocks):
        for matrix in tree.architecture.matrices:
            path = f"{tree.architecture.blocks}.{layer}.{matrix.path}"
            if matrix.experts:
                count, width, inputs = block.get_parameter(matrix.path).shape
                for role, rows in _halves(matrix, width).items():
                    for expert in range(count):
                        found[f"{role}.{layer}.{expert}"] = Rows(path, rows, inputs, expert)
                continue
            part = block.get_submodule(matrix.path)
            for role, rows in _rows(tree, layer, matrix, part).items():
                found[f"{role}.{layer}"] = Rows(path, rows, _inputs(part))
    return found


def weight(tree: ModuleTree, at: Rows) -> Tensor:
    """The matrix of a place, [o, i], in the memory of the host."""
    if at.expert is not None:
        return tree.model.get_parameter(at.module).detach()[at.expert, at.rows].cpu()
    part = tree.model.get_submodule(at.module)
    assert isinstance(part, nn.Linear | Conv1D)
    whole = part.weight.mT if isinstance(part, Conv1D) else part.weight
    return whole.detach()[at.rows].cpu()


def _inputs(part: nn.Module) -> int:
    assert isinstance(part, nn.Linear | Conv1D)
    return part.nx if isinstance(part, Conv1D) else part.in_features


def _rows(tree: ModuleTree, layer: int, matrix: Matrix, part: nn.Module) -> dict[Role, Tensor]:
    width = tree.held.width(part)
    if "queries" not in matrix.roles or len(matrix.roles) == 1:
        return _halves(matrix, width)
    w, k = tree.head_width, tree.kv_heads(layer)
    heads = torch.arange(width).unflatten(0, (-1, w))
    if matrix.layout == "stacked":
        parts = heads.split((len(heads) - 2 * k, k, k))
    else:  # for each KV head its queries, then its key and its value
        of_group = heads.unflatten(0, (k, -1))
        parts = of_group[:, :-2], of_group[:, -2], of_group[:, -1]
    return {role: rows.flatten() for role, rows in zip(matrix.roles, parts, strict=True)}


def _halves(matrix: Matrix, width: int) -> dict[Role, Tensor]:
    """As many rows of each role, one role after the other."""
    return dict(zip(matrix.roles, torch.arange(width).chunk(len(matrix.roles)), strict=True))
