"""A model with an adapter, for as long as it is wanted: nothing of the model is changed.

Shapes: b texts, t tokens, o and i what a layer returns and reads, r rank.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from actors.matrices import Rows, places
from actors.module_tree import ModuleTree
from alignment.updates import Update


@contextmanager
def adapting(tree: ModuleTree, updates: Mapping[str, Update]) -> Iterator[None]:
    """Every pass inside runs with these added to the places of a model that is whole.

    Gradients go back to their tensors, which must be where the model is.
    """
    where = places(tree)
    with ExitStack() as hooks:
        for place, update in updates.items():
            layer = tree.model.get_submodule(where[place].module)
            hooks.callback(layer.register_forward_hook(_adding(update, where[place])).remove)
        yield


def _adding(update: Update, at: Rows) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = (args[0].to(update.down) @ update.down.mT @ update.up.mT).to(output)
        if len(at.rows) == output.shape[-1]:
            return output + change
        return output.index_add(-1, at.rows.to(output.device), change)

    return hook
