"""A live causal language model and where things are in it.

Shapes: b texts, t tokens, d width of the residual stream, v vocabulary (or the tokens asked for).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from actors.architectures import Architecture
from alignment.positions import Rotary

ON_GPU = 4
ROWS_A_HEAD = 256  # that are scored at once; a CPU takes twice as long for a quarter of these
LOGITS_AT_ONCE = 2**21  # 8 MB: the chances of so many are worked out in a processor's cache
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Whole:
    """How a model is held: here, all of it in this process."""

    stops_early = True  # a pass may be left in the middle

    def device(self, model: PreTrainedModel) -> torch.device:
        """Where it computes."""
        return next(model.parameters()).device

    def width(self, projection: nn.Module) -> int:
        """How many numbers a projection makes of a token, on all ranks together."""
        assert isinstance(projection, nn.Linear | Conv1D)
        return projection.nf if isinstance(projection, Conv1D) else projection.out_features

    def gather(self, part: Tensor, projection: nn.Module) -> Tensor:  # noqa: ARG002
        """What all ranks have of what `projection` makes, from this rank's part: [..., w]."""
        return part

    def own(self, whole: Tensor, projection: nn.Module) -> Tensor:  # noqa: ARG002
        """This rank's part of what all ranks have: the reverse of `gather`."""
        return whole

    def score(self, head: nn.Module, states: Tensor, tokens: Tensor | None) -> Tensor:
        """The head's logits [..., v] of states [..., d], or of the tokens [v] only."""
        assert isinstance(head, nn.Linear)
        return scores(states, head.weight, head.bias, tokens)

    def with_gradients(self) -> AbstractContextManager[None]:
        """Inside, gradients go back through a pass as they do through a model in one process."""
        return nullcontext()

    def agreed(self, number: float) -> float:
        """The number of the first rank, so that no rank goes on where another one stops."""
        return number


def scores(states: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor | None) -> Tensor:
    """Of states [..., d] for every row of a head's matrix [v, d], or for the rows in `tokens`."""
    if tokens is not None:
        weight = weight[tokens]
        bias = None if bias is None else bias[tokens]
    # On a slice of a batch, in half precision, a CPU takes ten to a hundred times as long.
    rows = states.reshape(-1, states.shape[-1])
    return nn.functional.linear(rows, weight, bias).reshape(*states.shape[:-1], len(weight))


WHOLE = Whole()


@dataclass(frozen=True, eq=False)
class ModuleTree:
    """A model in memory, made for inference, and its module tree."""

    model: PreTrainedModel
    architecture: Architecture
    held: Whole = field(default=WHOLE, kw_only=True)

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder's blocks, first to last."""
        blocks = self.model.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.model.config.hidden_size

    @property
    def heads(self) -> int:
        """Query heads of a block."""
        return self.model.config.num_attention_heads

    @property
    def head_width(self) -> int:
        """Of one head: of its query, its key and its value."""
        return getattr(self.model.config, "head_dim", None) or self.width // self.heads

    @property
    def experts(self) -> int:
        """Of a sparse block."""
        config = self.model.config
        return getattr(config, "num_local_experts", None) or config.num_experts

    def kv_heads(self, layer: int) -> int:
        """How many keys, and as many values, block `layer` makes of a token.

        Counted in the live projection: configurations name it in different ways, or not at all.
        """
        values = self.architecture.values
        assert values is not None, "the values of this family cannot be told"
        heads = self.held.width(self.values_projection(layer)) // self.head_width
        return (heads - self.heads) // 2 if values.layout in ("stacked", "grouped") else heads

    @property
    def cached_copies(self) -> int:
        """How often the family's cache holds each KV head: once, but in Falcon's newer decoder."""
        if not getattr(self.model.config, "new_decoder_architecture", False):
            return 1
        return self.heads // self.kv_heads(0)

    def values_projection(self, layer: int) -> nn.Module:
        """The matrix of block `layer` that makes its values: the keys are shared out like them."""
        assert self.architecture.values is not None, "the values of this family cannot be told"
        return self.blocks[layer].get_submodule(self.architecture.values.path)

    def rotary(self, layer: int) -> Rotary | None:
        """What block `layer` does to its keys for their position; None where that is not rotary.

        Where the frequencies depend on how long the text is (dynamic NTK, LongRoPE), these are the
        ones for texts within the context that the scaling starts from.
        """
        config = self.model.config
        own = getattr(self.model.get_submodule(self.architecture.backbone), "rotary_emb", None)
        # Falcon has the module also where it uses ALiBi in its place.
        if own is None or getattr(config, "alibi", False):
            return None
        # SmolLM3 leaves some layers without; 1 in this list, whatever it is called, is one with it.
        with_it: list[int] | None = getattr(config, "no_rope_layers", None)
        if with_it is not None and not with_it[layer]:
            return None
        # Gemma 3 keeps one set of frequencies for each type of layer.
        prefix = f"{config.layer_types[layer]}_" if hasattr(config, "layer_types") else ""
        if not hasattr(own, f"{prefix}original_inv_freq"):
            prefix = ""
        frequencies: Tensor = getattr(own, f"{prefix}original_inv_freq")
        return Rotary(frequencies, getattr(own, f"{prefix}attention_scaling"))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.held.device(self.model)

    @property
    def at_once(self) -> int:
        """How many times as much it reads in a pass as on cores: a GPU idles over little."""
        return 1 if self.device.type == "cpu" else ON_GPU

    def embeddings(self, ids: Tensor) -> Tensor:
        """What the model reads of token ids [b, t], [b, t, d]: its `inputs_embeds`."""
        return self.model.get_input_embeddings()(ids)

    def states(self, ids: Tensor) -> Tensor:
        """Token ids [b, t], padded on the right, to what the head reads, [b, t, d].

        No mask is passed: attention is causal, so that padding on the right cannot reach a real
        token, and without a mask torch takes its fast path.
        """
        return self._backbone(input_ids=ids, use_cache=False).last_hidden_state

    def states_after(self, ids: Tensor, cache: Cache) -> Tensor:
        """As `states`, for ids [b, t] that come after what is cached of each text; it grows."""
        run = self._backbone(input_ids=ids, past_key_values=cache, use_cache=True)
        return run.last_hidden_state

    def states_among(
        self, ids: Tensor, positions: Tensor, masks: Tensor | dict[str, Tensor], cache: Cache
    ) -> Tensor:
        """As `states_after`, for ids [b, m] at positions [b, m] that need not be the last ones.

        `masks` [1, 1, m, t] are added to scores; by kind of layer, where a model has several.
        """
        run = self._backbone(
            input_ids=ids,
            position_ids=positions,
            attention_mask=masks,
            past_key_values=cache,
            use_cache=True,
        )
        return run.last_hidden_state

    def cache(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys (rotated) and values of every layer, each [b, k, t, w], for token ids [b, t].

        A layer with a sliding window may keep no more than its last tokens.
        """
        kept = self._backbone(input_ids=ids, use_cache=True).past_key_values.layers
        return [
            (self._heads_of_all(layer, each.keys), self._heads_of_all(layer, each.values))
            for layer, each in enumerate(kept)
        ]

    def _heads_of_all(self, layer: int, part: Tensor) -> Tensor:
        """From the heads [b, k, t, w] of this rank those of all."""
        together = part.transpose(1, 2).flatten(2)
        whole = self.held.gather(together, self.values_projection(layer))
        return whole.unflatten(2, (-1, self.head_width)).transpose(1, 2)

    @property
    def _backbone(self) -> nn.Module:
        return self.model.get_submodule(self.architecture.backbone)

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """What `states` returned, [..., d], to float32 logits [..., v], or of `tokens` [v] only."""
        return self._capped(self._scored(states, tokens))

    def log_chances(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Of each token [n] after what `states` returned for the one before it, [n, d]; float32.

        Without gradients no more than a part of all logits is there at a time.
        """
        found: list[Tensor] = []
        for some, own in zip(states.split(ROWS_A_HEAD), tokens.split(ROWS_A_HEAD), strict=True):
            scored = self._scored(some, None)
            rows = max(1, LOGITS_AT_ONCE * self.at_once // scored.shape[-1])
            for part, of in zip(scored.split(rows), own.split(rows), strict=True):
                chances = self._capped(part).log_softmax(-1)
                found.append(chances.gather(-1, of[:, None])[:, 0])
        return torch.cat(found)

    def _scored(self, states: Tensor, tokens: Tensor | None) -> Tensor:
        head = self.model.get_submodule(self.architecture.head)
        return self.held.score(head, states, tokens)

    def _capped(self, scored: Tensor) -> Tensor:
        logits = scored.float()
        cap: float | None = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap
