"""Experts with adapters on: each adds, to what its expert makes of the tokens that come to it, what
it makes of them itself. No matrix of an expert is made anew for that.

Shapes: s tokens, k experts of a token, d width of the residual stream, o and i what a matrix
returns and reads.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from actors.matrices import Rows
from actors.module_tree import ModuleTree
from alignment.updates import Update

Change = tuple[Rows, Update]
_IMPLEMENTATION = "adapted"
# What is on now, by the module of the experts, its matrix and the number of the expert.
_on: dict[nn.Module, dict[tuple[str, int], list[Change]]] = {}


@contextmanager
def adapting_experts(tree: ModuleTree, changes: Mapping[str, Sequence[Change]]) -> Iterator[None]:
    """Every pass inside runs with these on, which are by the path of a parameter that holds the
    matrices of all experts. Not within another one."""
    assert not _on, "adapters of experts are put on one at a time"
    before = tree.model.get_experts_implementation()
    try:
        for path, some in changes.items():
            module, _, name = path.rpartition(".")
            by_expert = _on.setdefault(tree.model.get_submodule(module), defaultdict(list))
            for at, update in some:
                assert at.expert is not None, f"{path} is not of experts"
                by_expert[name, at.expert].append((at, update))
        tree.model.set_experts_implementation(_IMPLEMENTATION)
        yield
    finally:
        tree.model.set_experts_implementation(before)
        _on.clear()


def _forward(experts: nn.Module, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What tokens [s, d] become by their experts [s, k], which count as much as their weights."""
    made = torch.zeros_like(states)
    gate = cast(Callable[[Tensor], Tensor], experts._apply_gate)
    for expert in range(len(experts.get_parameter("down_proj"))):
        token, which = torch.where(chosen == expert)
        inner = gate(_made(experts, "gate_up_proj", expert, states[token]))
        outer = _made(experts, "down_proj", expert, inner) * weights[token, which, None]
        made = made.index_add(0, token, outer.to(made.dtype))
    return made


def _made(experts: nn.Module, name: str, expert: int, read: Tensor) -> Tensor:
    """What a matrix makes of what an expert reads, [s, o], with what is on it."""
    made = nn.functional.linear(read, experts.get_parameter(name)[expert])
    for at, update in _on.get(experts, {}).get((name, expert), ()):
        made = changed(made, read, at, update)
    return made


def changed(made: Tensor, read: Tensor, at: Rows, update: Update) -> Tensor:
    """What a layer makes [.., o] of what it reads [.., i], with a change of some of its rows."""
    change = (read.to(update.down) @ update.down.mT @ update.up.mT).to(made)
    if len(at.rows) == made.shape[-1]:
        return made + change
    return made.index_add(-1, at.rows.to(made.device), change)


ALL_EXPERTS_FUNCTIONS.register(_IMPLEMENTATION, _forward)
