"""A model with an adapter, for as long as it is wanted: nothing of the model is changed.

Shapes: b texts, t tokens, o and i what a layer returns and reads, r rank.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from actors.adapted_experts import Change, adapting_experts, changed
from actors.matrices import Rows, places
from actors.module_tree import ModuleTree
from alignment.updates import Update


@contextmanager
def adapting(tree: ModuleTree, updates: Mapping[str, Update]) -> Iterator[None]:
    """Every pass inside runs with these added to the places of a model that is whole.

    They are brought to where the model is, once; gradients go back to their tensors.
    """
    where = places(tree)
    of_experts: dict[str, list[Change]] = defaultdict(list)
    with ExitStack() as hooks:
        for place, update in updates.items():
            at, update = where[place], update.on(tree.device)
            if at.expert is not None:
                of_experts[at.module].append((at, update))
                continue
            layer = tree.model.get_submodule(at.module)
            hooks.callback(layer.register_forward_hook(_adding(update, at)).remove)
        if of_experts:
            hooks.enter_context(adapting_experts(tree, of_experts))
        yield


def _adding(update: Update, at: Rows) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return changed(output, args[0], at, update)

    return hook
