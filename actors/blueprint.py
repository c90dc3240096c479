"""What a model is built like, as its published configuration says it: typed, and without weights.

Nothing heavy is imported: a fleet of models is compared in milliseconds.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from actors.architectures import (
    ALL_BIASED,
    ARCHITECTURES,
    NormKind,
    Placement,
    PositionKind,
    Traits,
)

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
UNSTATED_CONTEXT = 2048  # tokens, where a configuration does not say
_FULL = "full_attention"


class BlueprintError(ValueError):
    """A configuration that does not say what a decoder is made of; one line says what lacks."""


class Fact(BaseModel):
    """A value that does not change and has no other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Position(Fact):
    """How a model knows the order of its tokens.

    `theta` and `scaling` are of rotary embeddings; `share` is the part of each head that is
    rotated; `local_theta` is that of sliding-window layers where they have their own.
    """

    kind: PositionKind
    theta: float | None = None
    local_theta: float | None = None
    scaling: str | None = None
    share: float = 1.0

    def __str__(self) -> str:
        if self.kind != "rope":
            return {"alibi": "ALiBi", "learned": "learned"}[self.kind]
        parts = ["RoPE"]
        if self.theta is not None:
            parts.append(f"θ={self.theta:,.0f}")
        if self.local_theta is not None:
            parts.append(f"local θ={self.local_theta:,.0f}")
        if self.share != 1.0:
            parts.append(f"{self.share:.0%} of a head")
        if self.scaling is not None:
            parts.append(self.scaling)
        return " ".join(parts)


class Experts(Fact):
    """A sparse block: `count` experts of `width` neurons, `active` for each token."""

    count: int
    active: int
    width: int
    shared_width: int = 0


class Shape(Fact):
    """The sizes of a decoder, and its `model_type`. Widths in elements."""

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int


class Blueprint(Shape):
    """One decoder's facts. Widths in elements; `window` is the span of `sliding_layers` layers.

    `context` is the most positions it was built for, None where the configuration says nothing.
    """

    mlp_width: int
    activation: str
    norm: NormKind
    placement: Placement
    offset_gain: bool
    parallel: bool
    key_norm: bool
    position: Position
    window: int | None
    sliding_layers: int
    experts: Experts | None
    context: int | None
    dtype: str
    tied: bool
    parameters: int
    active_parameters: int

    @property
    def attention(self) -> str:
        """MHA, GQA or MQA."""
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    @property
    def norm_line(self) -> str:
        """The norm, its form and its place, in a few words for people."""
        gain = ", 1+gain" if self.offset_gain else ""
        parallel = ", parallel block" if self.parallel else ""
        return f"{self.norm} {self.placement}{gain}{parallel}"

    @property
    def embedding_parameters(self) -> int:
        """Of the input embedding, and of the head where it is not the same matrix."""
        return (1 if self.tied else 2) * self.vocabulary * self.width

    def kv_bytes(self, tokens: int, dtype: str) -> int:
        """Bytes of the keys and values of one sequence; sliding layers keep their window only."""
        windowed = tokens if self.window is None else min(tokens, self.window)
        rows = (self.layers - self.sliding_layers) * tokens + self.sliding_layers * windowed
        return 2 * rows * self.kv_heads * self.head_width * BYTES[dtype]


def blueprint(config: Mapping[str, Any]) -> Blueprint:
    """Read a config.json, with the key names of its family, old or new.

    A family that is not in ARCHITECTURES is read as Llama's.

    Raises:
        BlueprintError: a size is missing, or is no positive number.
    """
    return _Reader(config).read()


class _Reader:
    def __init__(self, config: Mapping[str, Any]) -> None:
        # Models of several modalities keep the decoder's part under this key.
        inner = config.get("text_config")
        self.config = inner if isinstance(inner, Mapping) and "hidden_size" in inner else config
        family = self.config.get("model_type")
        if not isinstance(family, str):
            raise BlueprintError("the configuration has no model_type")
        self.family = family
        known = ARCHITECTURES.get(family)
        self.traits = known.traits if known else Traits()

    def size(self, *names: str, default: int | None = None) -> int:
        value = self.first(*names)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found = "missing" if value is None else f"{value!r}"
            raise BlueprintError(f"{self.family}: {names[0]} is {found}, not a positive number")
        return value

    def first(self, *names: str) -> Any:
        return next((self.config[n] for n in names if self.config.get(n) is not None), None)

    def read(self) -> Blueprint:
        width = self.size("hidden_size", "n_embd", "d_model")
        layers = self.size("num_hidden_layers", "n_layer")
        heads = self.size("num_attention_heads", "n_head")
        mlp = ("intermediate_size", "n_inner", "ffn_hidden_size")
        experts, (window, sliding) = self._experts(), self._window(layers)
        shape = Blueprint(
            family=self.family,
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=self._kv_heads(heads),
            head_width=self.size("head_dim", default=width // heads),
            mlp_width=self.size(*mlp, default=None if self.traits.gated else 4 * width),
            vocabulary=self.size("vocab_size"),
            activation=self._activation(),
            norm=self.traits.norm,
            placement=self.traits.placement,
            offset_gain=self.traits.offset_gain,
            parallel=self._parallel(),
            key_norm=self.traits.key_norm is not None,
            position=self._position(),
            window=window,
            sliding_layers=sliding,
            experts=experts,
            context=self.first("max_position_embeddings", "n_positions", "seq_length"),
            dtype=str(self.first("torch_dtype", "dtype") or "float32"),
            tied=bool(self.config.get("tie_word_embeddings", self.traits.tied)),
            parameters=0,
            active_parameters=0,
        )
        counts = {
            "parameters": self._parameters(shape, experts.count if experts else 1),
            "active_parameters": self._parameters(shape, experts.active if experts else 1),
        }
        return shape.model_copy(update=counts)

    def _kv_heads(self, heads: int) -> int:
        if self.config.get("multi_query") and not self.config.get("new_decoder_architecture"):
            return 1
        return self.size("num_key_value_heads", "num_kv_heads", default=heads)

    def _parallel(self) -> bool:
        said = self.first("parallel_attn", "use_parallel_residual")
        return self.traits.parallel if said is None else bool(said)

    def _activation(self) -> str:
        names = ("hidden_activation", "hidden_act", "activation_function", "activation")
        name = str(self.first(*names) or self.traits.activation)
        plain = "SiLU" if name in ("silu", "swish") else "GELU" if "gelu" in name else name
        if not self.traits.gated:
            return plain
        return {"SiLU": "SwiGLU", "GELU": "GeGLU"}.get(plain, f"gated {plain}")

    def _experts(self) -> Experts | None:
        count = self.first("num_local_experts", "num_experts")
        if not count:
            return None
        return Experts(
            count=count,
            active=self.size("num_experts_per_tok"),
            width=self.size("moe_intermediate_size", "intermediate_size"),
            shared_width=self.first("shared_expert_intermediate_size") or 0,
        )

    def _position(self) -> Position:
        kind: PositionKind = "alibi" if self.config.get("alibi") else self.traits.position
        if kind != "rope":
            return Position(kind=kind)
        rope = self.config.get("rope_parameters") or {}
        whole, local = rope.get(_FULL, rope), rope.get("sliding_attention", {})
        scaling = {**(self.config.get("rope_scaling") or {}), **whole}
        how = scaling.get("rope_type", scaling.get("type", "default"))
        factor = scaling.get("factor")
        theta = whole.get("rope_theta") or self.first("rope_theta", "rotary_emb_base") or 1e4
        share = self.first("partial_rotary_factor", "rotary_pct") or 1.0
        return Position(
            kind="rope",
            theta=float(theta),
            local_theta=local.get("rope_theta") or self.first("rope_local_base_freq"),
            scaling=None if how == "default" else f"{how} ×{factor:g}" if factor else how,
            share=float(scaling.get("partial_rotary_factor", share)),
        )

    def _window(self, layers: int) -> tuple[int | None, int]:
        window = self.first("sliding_window")
        if not window or self.config.get("use_sliding_window") is False:
            return None, 0
        if types := self.config.get("layer_types"):
            return window, sum(each != _FULL for each in types)
        if period := self.first("sliding_window_pattern", "_sliding_window_pattern"):
            return window, layers - layers // period
        if self.family == "gemma2":
            return window, (layers + 1) // 2
        return window, layers

    def _parameters(self, shape: Blueprint, experts: int) -> int:
        traits, d = self.traits, shape.width
        gain = 2 if traits.norm == "LayerNorm" else 1  # LayerNorm has a bias beside its gain
        query, key = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        biased = set(traits.biased)
        if self.config.get("bias"):
            biased |= ALL_BIASED
        if self.config.get("attention_bias"):
            biased |= {"qkv", "out"}
        block = d * (query + 2 * key) + query * d
        block += ("qkv" in biased) * (query + 2 * key) + ("out" in biased) * d
        block += {None: 0, "head": 2 * shape.head_width, "width": query + key}[traits.key_norm]
        block += self._norms(shape) * gain * d
        matrices = 3 if traits.gated else 2
        if shape.experts is None:
            block += matrices * d * shape.mlp_width
            block += ("mlp" in biased) * (shape.mlp_width + d)
        else:
            shared = shape.experts.shared_width
            block += experts * matrices * d * shape.experts.width + d * shape.experts.count
            block += matrices * d * shared + (d if shared else 0)
        embeddings = shape.embedding_parameters
        if shape.position.kind == "learned":
            embeddings += (shape.context or 0) * d
        norms = gain * d * (2 if traits.embedding_norm else 1)
        return shape.layers * block + embeddings + norms

    def _norms(self, shape: Blueprint) -> int:
        # Falcon has one norm for a parallel block, and two in its later form and when not parallel.
        if self.family == "falcon":
            later = self.config.get("new_decoder_architecture")
            return self.size("num_ln_in_parallel_attn", default=2) if later else 2 - shape.parallel
        return self.traits.norms
