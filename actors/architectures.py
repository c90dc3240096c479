"""Where things are in the module tree of each supported family of decoder, as data."""

from dataclasses import dataclass


class UnknownArchitecture(ValueError):
    """The checkpoint's `model_type` is none of the supported ones."""


@dataclass(frozen=True)
class Architecture:
    """Dotted paths of the parts of one causal language model.

    `backbone`, `blocks`, `final_norm` and `head` start at the model itself, `attention` and `mlp`
    at one of its blocks. `attention` and `mlp` name the submodule whose output is *added* to the
    residual stream, so that residual[l - 1] + attention[l] + mlp[l] = residual[l].
    """

    backbone: str = "model"
    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    attention: str = "self_attn"
    mlp: str = "mlp"


_PRE_NORM = Architecture()
# Gemma 2 and 3 normalise again before they add: what the attention itself returns is not added.
_SANDWICH_NORM = Architecture(
    attention="post_attention_layernorm", mlp="post_feedforward_layernorm"
)

ARCHITECTURES: dict[str, Architecture] = {
    "gemma": _PRE_NORM,
    "gemma2": _SANDWICH_NORM,
    "gemma3_text": _SANDWICH_NORM,
    "llama": _PRE_NORM,
    "mistral": _PRE_NORM,
    "qwen2": _PRE_NORM,
}
"""By `model_type` of the checkpoint's config.json."""


def architecture_of(model_type: str) -> Architecture:
    """The module tree of a family, by the `model_type` of its config.json.

    Raises:
        UnknownArchitecture: one line that lists the families there are.
    """
    if model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnknownArchitecture(f"model_type {model_type!r} is not supported; known are: {known}")
    return ARCHITECTURES[model_type]
