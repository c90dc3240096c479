"""A model that reads a soft prompt among the tokens of every text, for as long as it is wanted.

Shapes: b texts, t tokens, k rows of the prompt, d width of an embedding and of the residual stream.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from actors.module_tree import ModuleTree


@contextmanager
def prompting(tree: ModuleTree, rows: Tensor, after: int = 0) -> Iterator[None]:
    """Every call of `states` inside reads these rows, the same ones [k, d] or those of each text
    [b, k, d], after its first tokens, so many of them, and returns what it returns of tokens.
    Gradients go back to the rows, which must be where the model is."""
    backbone = tree.model.get_submodule(tree.architecture.backbone)
    end = after + rows.shape[-2]

    def give(
        _module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        read = tree.embeddings(given["input_ids"])
        prompt = rows.to(read).expand(len(read), *rows.shape[-2:])
        others = {name: value for name, value in given.items() if name != "input_ids"}
        together = torch.cat([read[:, :after], prompt, read[:, after:]], 1)
        return args, {"inputs_embeds": together, **others}

    def take(
        _module: nn.Module, _args: tuple[Any, ...], out: BaseModelOutputWithPast
    ) -> BaseModelOutputWithPast:
        found = out.last_hidden_state
        assert found is not None
        out.last_hidden_state = torch.cat([found[:, :after], found[:, end:]], 1)
        return out

    with ExitStack() as hooks:
        hooks.callback(backbone.register_forward_pre_hook(give, with_kwargs=True).remove)
        hooks.callback(backbone.register_forward_hook(take).remove)
        yield
