"""Families that nobody described: what is made out of them, and what is refused, in which words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from actors.architectures import ARCHITECTURES, Architecture, Projection, UnknownArchitecture
from actors.discovery import discover, require_decoder
from actors.engine import Engine
from actors.module_tree import ModuleTree
from actors.site_names import Site
from actors.sites import reading

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
LLAMA = ARCHITECTURES["llama"]
# What cannot be proved for an interleaved rotary embedding.
NO_KEYS = replace(LLAMA, keys=None)

FOUND: dict[str, tuple[dict[str, Any], Architecture]] = {
    "ernie4_5": ({}, NO_KEYS),
    "glm": ({"head_dim": 8, "pad_token_id": 1}, NO_KEYS),
    "granite": ({}, LLAMA),
    "mpt": (
        {},
        Architecture(
            backbone="transformer",
            blocks="transformer.blocks",
            final_norm="transformer.norm_f",
            attention="attn",
            mlp="ffn.down_proj",
            keys=Projection("attn.Wqkv", "stacked"),
            values=Projection("attn.Wqkv", "stacked"),
        ),
    ),
    "nemotron": ({}, LLAMA),
    "olmo": ({}, LLAMA),
    "olmo3": ({"sliding_window": 4}, ARCHITECTURES["olmo2"]),
    "persimmon": (
        {},
        replace(
            LLAMA,
            final_norm="model.final_layernorm",
            keys=Projection("self_attn.k_layernorm"),
            values=Projection("self_attn.query_key_value", "grouped"),
        ),
    ),
    "phi": ({"partial_rotary_factor": 0.5}, replace(LLAMA, final_norm="model.final_layernorm")),
    "qwen3_moe": (
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        ARCHITECTURES["qwen3"],
    ),
    # Every second layer is without a rotary embedding.
    "smollm3": ({"no_rope_layer_interval": 2}, LLAMA),
    "stablelm": ({"partial_rotary_factor": 0.5}, LLAMA),
    "starcoder2": ({"sliding_window": 4}, LLAMA),
}

ADD_UP = "what its attention and one other part of a block return does not add up"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bert": ({}, "no norm stands between its last block and its head"),
    "cohere": ({}, "what its head returns are not its logits: it does more to them"),
    "gemma3_text": (
        {"use_bidirectional_attention": True, "head_dim": 8},
        "its tokens see what comes after them",
    ),
    "gpt_bigcode": ({}, r"its blocks do not treat the texts of a batch one by one \(shape .*\)"),
    "granite": ({"residual_multiplier": 0.5}, ADD_UP),
    "lfm2": ({"layer_types": ["full_attention", "conv", "conv"]}, "block 1 has no attention"),
    "mamba": ({}, "block 0 has no attention"),
    "openai-gpt": ({}, "its blocks do not return the residual stream"),
    "opt": ({"word_embed_proj_dim": 32, "ffn_dim": 64}, ADD_UP),
}


Outcome = Callable[[str, str], None]


@pytest.fixture
def made_out(record_property: Callable[[str, object], None]) -> Outcome:
    """Say what docs/conformance.md is to say of a family that is not in the table."""

    def record(family: str, outcome: str) -> None:
        record_property("unknown", family)
        record_property("outcome", outcome)

    return record


def tiny(family: str, dtype: torch.dtype = torch.float32, **more: Any) -> PreTrainedModel:
    """Three layers, with weights large enough for every layer to matter."""
    config = transformers.CONFIG_MAPPING[family](**(SIZES | more))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() >= 2:
                weights.normal_(0, 0.2)
            else:
                weights.add_(0.2 * torch.randn_like(weights))
    return model.to(dtype).eval()


def hooks(model: PreTrainedModel) -> list[object]:
    """Ours: transformers leaves some of its own."""
    left = (hook for module in model.modules() for hook in module._forward_hooks.values())
    return [hook for hook in left if hook.__module__.startswith("actors.")]


def test_what_is_made_out_is_what_the_table_says(engine: Engine, case: str) -> None:
    found = discover(engine.model)
    if case == "falcon":  # with one KV head, two layouts are the same
        assert found.values == found.keys == Projection("self_attention.query_key_value", "stacked")
        found = replace(found, keys=engine.architecture.keys, values=engine.architecture.values)
    assert found == engine.architecture


@pytest.mark.parametrize("family", FOUND)
def test_families_that_are_not_in_the_table_are_made_out(family: str, made_out: Outcome) -> None:
    more, expected = FOUND[family]
    assert family not in ARCHITECTURES
    model = tiny(family, **more)
    assert discover(model) == expected
    made_out(family, "all sites" if expected.keys else "all sites but keys")
    assert not hooks(model)


def test_it_is_made_out_in_half_precision_too() -> None:
    assert discover(tiny("stablelm", torch.bfloat16)) == LLAMA


def test_a_dropout_used_twice_is_not_taken_for_the_mlp() -> None:
    tree = ModuleTree(model := tiny("phi"), discover(model))
    site, ids = Site("mlp", 1), torch.arange(5)[None]
    with torch.inference_mode(), reading(tree, [site]) as found:
        tree.states(ids)
        seen: list[torch.Tensor] = []
        hook = (
            tree.blocks[1]
            .get_submodule("mlp")
            .register_forward_hook(lambda _m, _a, out: seen.append(out))
        )
        tree.states(ids)
        hook.remove()
    assert torch.equal(found[site], seen[0])


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_proved_is_refused_in_one_line(family: str, made_out: Outcome) -> None:
    more, why = REFUSED[family]
    said = rf"^{family} is not in the table, and could not be made out: {why}.*; known are: .*\Z"
    model = tiny(family, **more)
    with pytest.raises(UnknownArchitecture, match=said) as refused:
        discover(model)
    assert not hooks(model)
    if family not in ARCHITECTURES:
        reason = str(refused.value).partition("made out: ")[2].partition("; known are")[0]
        with_what = ", ".join(
            f"{name} = {value}" for name, value in more.items() if family in FOUND
        )
        made_out(f"{family} ({with_what})" if with_what else family, f"refused: {reason}")


def test_what_has_an_encoder_is_refused() -> None:
    config = transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    with pytest.raises(UnknownArchitecture, match=r"^t5 .*: it has an encoder beside its decoder"):
        discover(model)


def test_what_transformers_does_not_know_is_refused_before_it_is_loaded() -> None:
    for family in ("t5", "no_such_thing"):
        with pytest.raises(UnknownArchitecture, match=f"^{family}: transformers has no causal"):
            require_decoder(family)
    for family in (*ARCHITECTURES, *FOUND):
        require_decoder(family)


def test_blocks_that_are_not_as_many_as_stated_are_refused() -> None:
    model = tiny("stablelm")
    model.config.num_hidden_layers = 5
    with pytest.raises(UnknownArchitecture, match="one list of 5 blocks was looked for, 0 were"):
        discover(model)
