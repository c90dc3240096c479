"""A model that reads a soft prompt before every text, for as long as it is wanted.

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
def prompting(tree: ModuleTree, rows: Tensor) -> Iterator[None]:
    """Every call of `states` inside reads these rows [k, d] first, and returns what it returns of
    the tokens after them. Gradients go back to the rows, which must be where the model is."""
    backbone = tree.model.get_submodule(tree.architecture.backbone)

    def before(
        _module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        read = tree.embeddings(given["input_ids"])
        prompt = rows.to(read).expand(len(read), *rows.shape)
        others = {name: value for name, value in given.items() if name != "input_ids"}
        return args, {"inputs_embeds": torch.cat([prompt, read], 1), **others}

    def after(
        _module: nn.Module, _args: tuple[Any, ...], out: BaseModelOutputWithPast
    ) -> BaseModelOutputWithPast:
        assert out.last_hidden_state is not None
        out.last_hidden_state = out.last_hidden_state[:, len(rows) :]
        return out

    with ExitStack() as hooks:
        hooks.callback(backbone.register_forward_pre_hook(before, with_kwargs=True).remove)
        hooks.callback(backbone.register_forward_hook(after).remove)
        yield
