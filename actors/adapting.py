"""A model with an adapter, for as long as it is wanted: nothing of the model is changed.

Shapes: b texts, t tokens, o and i what a layer returns and reads, r rank.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize

from actors.matrices import Rows, places
from actors.module_tree import ModuleTree
from alignment.updates import Update


@contextmanager
def adapting(tree: ModuleTree, updates: Mapping[str, Update]) -> Iterator[None]:
    """Every pass inside runs with these added to the places of a model that is whole.

    Gradients go back to their tensors, which must be where the model is.
    """
    where = places(tree)
    of_experts: dict[str, list[tuple[Rows, Update]]] = defaultdict(list)
    with ExitStack() as hooks:
        for place, update in updates.items():
            at = where[place]
            if at.expert is not None:
                of_experts[at.module].append((at, update))
                continue
            layer = tree.model.get_submodule(at.module)
            hooks.callback(layer.register_forward_hook(_adding(update, at)).remove)
        for path, some in of_experts.items():
            module, _, name = path.rpartition(".")
            experts = tree.model.get_submodule(module)
            parametrize.register_parametrization(experts, name, _Changed(some))
            hooks.callback(
                parametrize.remove_parametrizations, experts, name, leave_parametrized=False
            )
        hooks.enter_context(parametrize.cached())  # each is made once
        yield


def _adding(update: Update, at: Rows) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = (args[0].to(update.down) @ update.down.mT @ update.up.mT).to(output)
        if len(at.rows) == output.shape[-1]:
            return output + change
        return output.index_add(-1, at.rows.to(output.device), change)

    return hook


class _Changed(nn.Module):
    """The matrices of all experts [experts, o, i] with changes of some."""

    def __init__(self, changes: Sequence[tuple[Rows, Update]]) -> None:
        super().__init__()
        self._changes = changes

    def forward(self, matrices: Tensor) -> Tensor:
        changed = matrices.clone()
        for at, update in self._changes:
            changed[at.expert, at.rows] += (update.up @ update.down).to(changed)
        return changed
