"""What each supported family of decoder is like, as data: its module tree, and its fixed traits."""

from dataclasses import dataclass, field, replace
from typing import Literal

NormKind = Literal["RMSNorm", "LayerNorm"]
Placement = Literal["pre", "post", "sandwich"]
PositionKind = Literal["rope", "alibi", "learned"]
Layout = Literal["plain", "heads_first", "stacked", "grouped"]
Role = Literal["queries", "keys", "values", "out", "gate", "up", "down"]


class UnknownArchitecture(ValueError):
    """The family is none of the supported ones, or its tree cannot be made out; one line."""


ALL_BIASED = frozenset({"qkv", "out", "mlp"})


@dataclass(frozen=True)
class Traits:
    """What the code of a family fixes and its config.json leaves out. Defaults are Llama's.

    `placement` is where a norm stands: before a part (pre), after it (post), or both (sandwich).
    `norms` counts the block's own; `activation` is the one where none is named. `biased` are the
    linear layers that have a bias whatever the configuration says.
    """

    norm: NormKind = "RMSNorm"
    placement: Placement = "pre"
    norms: int = 2
    parallel: bool = False
    offset_gain: bool = False
    gated: bool = True
    activation: str = "silu"
    position: PositionKind = "rope"
    biased: frozenset[str] = frozenset()
    key_norm: Literal["head", "width"] | None = None
    tied: bool = False
    embedding_norm: bool = False


@dataclass(frozen=True)
class Projection:
    """Which module of a block returns its keys or its values, and how they lie in what it returns.

    With b texts, t tokens, h query heads, k KV heads of width w:

    - plain: [b, t, k * w] or [b, t, k, w], nothing but them
    - heads_first: [b, k, t, w], nothing but them
    - stacked: [b, t, (h + 2 k) w]: all queries, then all keys, then all values
    - grouped: [b, t, k (h / k + 2) w]: for each KV head its queries, then its key, then its value
    """

    path: str
    layout: Layout = "plain"


@dataclass(frozen=True)
class Matrix:
    """A linear layer of a block and what it returns: of several roles, in their order.

    `out` and `down` write what attention and MLP add to the stream; `gate` is what an activation
    goes over, and where there is none `up` is. Several roles lie one after the other (stacked), or
    for each KV head (grouped); what is not attention is halved. Of `experts` the path is that of a
    parameter [experts, o, i] instead.
    """

    path: str
    roles: tuple[Role, ...]
    layout: Literal["stacked", "grouped"] = "stacked"
    experts: bool = False


@dataclass(frozen=True)
class Architecture:
    """Dotted paths of the parts of one causal language model.

    `backbone`, `blocks`, `final_norm` and `head` start at the model itself, the others at one of
    its blocks. `attention` and `mlp` name the submodule whose output is *added* to the residual
    stream, so that residual[l - 1] + attention[l] + mlp[l] = residual[l], be they one after the
    other or in parallel. `router` chooses the experts, where there are any. `keys` and `values` are
    as the cache will hold them but for the rotary embedding: after a norm of the keys, if the
    family has one. None where they cannot be told. `matrices` are what an adapter may change.
    `traits` is what the family's code fixes besides.
    """

    backbone: str = "model"
    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    attention: str = "self_attn"
    mlp: str = "mlp"
    router: str | None = field(default=None, compare=False)  # which is not made out
    keys: Projection | None = Projection("self_attn.k_proj")
    values: Projection | None = Projection("self_attn.v_proj")
    matrices: tuple[Matrix, ...] = field(default=(), compare=False)
    traits: Traits = field(default=Traits(), compare=False)  # which no tree shows

    @property
    def shardable(self) -> bool:
        """Whether its heads can be shared out: queries, keys and values are matrices of their own,
        and no norm goes across heads."""
        apart = self.values is not None and self.values.layout == "plain"
        return apart and self.traits.key_norm != "width"


_QKV: tuple[Role, ...] = ("queries", "keys", "values")


def _fused(
    attention: str, path: str, layout: Literal["stacked", "grouped"], *others: Matrix
) -> Architecture:
    both = Projection(f"{attention}.{path}", layout)
    return Architecture(
        attention=attention,
        keys=both,
        values=both,
        matrices=(Matrix(both.path, _QKV, layout), *others),
    )


_OUT = Matrix("self_attn.o_proj", ("out",))
_DOWN = Matrix("mlp.down_proj", ("down",))
_ATTENTION = (
    Matrix("self_attn.q_proj", ("queries",)),
    Matrix("self_attn.k_proj", ("keys",)),
    Matrix("self_attn.v_proj", ("values",)),
    _OUT,
)
_GATED = (Matrix("mlp.gate_proj", ("gate",)), Matrix("mlp.up_proj", ("up",)), _DOWN)
_EXPERTS = (
    Matrix("mlp.experts.gate_up_proj", ("gate", "up"), experts=True),
    Matrix("mlp.experts.down_proj", ("down",), experts=True),
)
_SHARED = tuple(
    replace(each, path=each.path.replace("mlp.", "mlp.shared_expert.")) for each in _GATED
)
_DENSE_4H = (Matrix("mlp.dense_h_to_4h", ("up",)), Matrix("mlp.dense_4h_to_h", ("down",)))
_LLAMA = Architecture(matrices=_ATTENTION + _GATED)
_NORMED_KEYS = Projection("self_attn.k_norm")
# Where the parts are normalised before they are added, what the attention itself returns is not.
_NORM_AFTER = replace(
    _LLAMA, attention="post_attention_layernorm", mlp="post_feedforward_layernorm"
)
_TRANSFORMER = {
    "backbone": "transformer",
    "blocks": "transformer.h",
    "final_norm": "transformer.ln_f",
}
_FALCON = replace(
    _fused(
        "self_attention",
        "query_key_value",
        "grouped",
        Matrix("self_attention.dense", ("out",)),
        *_DENSE_4H,
    ),
    **_TRANSFORMER,
)
_LAYER_NORM = Traits(norm="LayerNorm", gated=False, activation="gelu")
_GEMMA = Traits(offset_gain=True, tied=True, activation="gelu")
_SANDWICH = replace(_GEMMA, placement="sandwich", norms=4)
_QWEN2 = Traits(biased=frozenset({"qkv"}))

ARCHITECTURES: dict[str, Architecture] = {
    # Attention and MLP add the stream themselves: what is added is what their last parts return.
    "bloom": replace(
        _FALCON,
        attention="self_attention.dense",
        mlp="mlp.dense_4h_to_h",
        traits=replace(
            _LAYER_NORM, position="alibi", biased=ALL_BIASED, tied=True, embedding_norm=True
        ),
    ),
    "falcon": replace(_FALCON, traits=replace(_LAYER_NORM, norms=1, parallel=True, tied=True)),
    "gemma": replace(_LLAMA, traits=_GEMMA),
    "gemma2": replace(_NORM_AFTER, traits=_SANDWICH),
    "gemma3_text": replace(
        _NORM_AFTER,
        keys=replace(_NORMED_KEYS, layout="heads_first"),
        traits=replace(_SANDWICH, key_norm="head"),
    ),
    "gpt2": replace(
        _fused(
            "attn",
            "c_attn",
            "stacked",
            Matrix("attn.c_proj", ("out",)),
            Matrix("mlp.c_fc", ("up",)),
            Matrix("mlp.c_proj", ("down",)),
        ),
        **_TRANSFORMER,
        traits=replace(_LAYER_NORM, position="learned", biased=ALL_BIASED, tied=True),
    ),
    "gpt_neox": replace(
        _fused(
            "attention",
            "query_key_value",
            "grouped",
            Matrix("attention.dense", ("out",)),
            *_DENSE_4H,
        ),
        backbone="gpt_neox",
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        traits=replace(_LAYER_NORM, parallel=True, biased=ALL_BIASED),
    ),
    "llama": _LLAMA,  # and with it Yi, DeepSeek LLM and SOLAR
    "mistral": _LLAMA,
    "mixtral": replace(_LLAMA, router="mlp.gate", matrices=_ATTENTION + _EXPERTS),
    "olmo2": replace(
        _NORM_AFTER, keys=_NORMED_KEYS, traits=Traits(placement="post", key_norm="width")
    ),
    "phi3": _fused(
        "self_attn",
        "qkv_proj",
        "stacked",
        _OUT,
        Matrix("mlp.gate_up_proj", ("gate", "up")),
        _DOWN,
    ),
    "qwen2": replace(_LLAMA, traits=_QWEN2),
    "qwen2_moe": replace(
        _LLAMA, router="mlp.gate", matrices=_ATTENTION + _SHARED + _EXPERTS, traits=_QWEN2
    ),
    "qwen3": replace(_LLAMA, keys=_NORMED_KEYS, traits=Traits(key_norm="head")),
}
"""By `model_type` of the checkpoint's config.json."""


def known() -> str:
    """The families there are, as the end of a message."""
    return f"known are: {', '.join(sorted(ARCHITECTURES))}"
