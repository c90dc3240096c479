"""What a configuration says of a model is what the model turns out to be, built without weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from actors.blueprint import BYTES, Blueprint, BlueprintError, blueprint
from actors.catalog import Entry
from actors.fleet import fleet
from actors.weights import facts

OPEN = tuple(entry for entry in fleet().values() if entry.weights == "open")
# One entry for each configuration: several models share theirs with another.
SHAPES = {json.dumps(entry.config, sort_keys=True): entry for entry in reversed(OPEN)}.values()
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def named(entry: Entry) -> str:
    return entry.name


def built(config: dict[str, Any]) -> PreTrainedModel:
    """The model of this configuration, of shapes alone."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()


@pytest.mark.parametrize("entry", SHAPES, ids=named)
def test_a_model_of_the_fleet_is_what_its_blueprint_says(entry: Entry) -> None:
    config, said = entry.config, entry.blueprint
    assert config is not None
    whole = built(config)
    assert said.parameters == whole.num_parameters()
    assert said.layers == whole.config.num_hidden_layers
    assert said.width == whole.config.hidden_size

    one = {"n_layer" if "n_layer" in config else "num_hidden_layers": 1}
    shallow = built({key: value for key, value in config.items() if key != "layer_types"} | one)
    with torch.device("meta"), torch.no_grad():
        answer = shallow(torch.zeros(1, 3, dtype=torch.long), use_cache=True)
    assert answer.logits.shape == (1, 3, said.vocabulary)
    # transformers repeats the KV heads of Falcon's later form for its query heads, then keeps them.
    kept = said.heads if config.get("new_decoder_architecture") else said.kv_heads
    assert answer.past_key_values.layers[0].keys.shape == (1, kept, 3, said.head_width)
    assert said.heads == shallow.config.num_attention_heads


@pytest.mark.parametrize("entry", OPEN, ids=named)
def test_a_parameter_count_that_an_entry_publishes_is_that_of_its_configuration(
    entry: Entry,
) -> None:
    assert entry.parameters in (None, entry.blueprint.parameters)


def test_the_tiny_models_are_what_their_checkpoints_hold(
    case: str, checkpoint: Callable[[str], Path]
) -> None:
    directory = checkpoint(case)
    said = blueprint(json.loads((directory / "config.json").read_text()))
    held = facts(directory, "tiny", "float32")
    stored = held.model_dump(exclude={"name", "fingerprint", "sparse"})
    assert said.model_dump(include=set(stored)) == stored
    assert held.sparse == (said.experts is not None)


@pytest.mark.parametrize("entry", SHAPES, ids=named)
def test_the_old_spelling_of_a_configuration_and_the_new_one_read_the_same(entry: Entry) -> None:
    assert entry.config is not None
    assert blueprint(AutoConfig.for_model(**entry.config).to_dict()) == entry.blueprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}},
        ),
        (
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                }
            },
        ),
        (
            {"rotary_emb_base": 2e4, "rotary_pct": 0.25},
            {"rope_parameters": {"rope_theta": 2e4, "partial_rotary_factor": 0.25}},
        ),
        ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"hidden_act": "gelu"}, {"hidden_activation": "gelu"}),
    ],
)
def test_what_has_two_spellings_is_read_in_both(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert blueprint(LLAMA | old) == blueprint(LLAMA | new) != blueprint(LLAMA)


def test_sizes_under_the_names_of_gpt_2_are_the_same_sizes() -> None:
    short = {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_inner": 96,
        "n_positions": 32,
        "vocab_size": 100,
    }
    long = {
        "model_type": "gpt2",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 32,
        "vocab_size": 100,
    }
    assert blueprint(short) == blueprint(long)


def test_a_sparse_model_uses_its_active_experts_and_all_of_its_router() -> None:
    said = fleet()["mixtral-8x7b"].blueprint
    config = fleet()["mixtral-8x7b"].config
    assert config is not None
    assert said.experts is not None
    two = built(config | {"num_local_experts": 2}).num_parameters()
    assert said.active_parameters == two + said.layers * said.width * (8 - 2)
    assert round(said.active_parameters / 1e9, 1) == 12.9  # as its makers say
    dense = fleet()["llama-3-8b"].blueprint
    assert dense.active_parameters == dense.parameters


@given(
    sliding=st.lists(st.booleans(), min_size=1, max_size=6),
    window=st.integers(1, 40),
    tokens=st.integers(0, 60),
    dtype=st.sampled_from(sorted(BYTES)),
)
def test_a_cache_holds_the_tokens_that_each_layer_still_sees(
    sliding: list[bool], window: int, tokens: int, dtype: str
) -> None:
    types = ["sliding_attention" if each else "full_attention" for each in sliding]
    layers = {"num_hidden_layers": len(sliding), "layer_types": types, "sliding_window": window}
    said = blueprint(LLAMA | layers)
    numbers = sum(
        2 * 2 * 8  # keys and values of two KV heads of width 8
        for each in sliding
        for token in range(tokens)
        if not each or token >= tokens - window
    )
    assert said.kv_bytes(tokens, dtype) == numbers * BYTES[dtype]


@pytest.mark.parametrize(
    ("more", "window", "sliding"),
    [
        ({}, None, 0),
        ({"sliding_window": 16}, 16, 3),
        ({"sliding_window": 16, "use_sliding_window": False}, None, 0),
        ({"sliding_window": 16, "sliding_window_pattern": 3}, 16, 2),
        ({"sliding_window": 16, "model_type": "gemma2"}, 16, 2),
        ({"sliding_window": None, "layer_types": ["full_attention"] * 3}, None, 0),
    ],
)
def test_a_window_is_of_the_layers_that_have_it(
    more: dict[str, Any], window: int | None, sliding: int
) -> None:
    said = blueprint(LLAMA | more)
    assert (said.window, said.sliding_layers) == (window, sliding)


@pytest.mark.parametrize("size", ["hidden_size", "num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("wrong", [None, 0, -8, 6.5, "64", True])
def test_a_size_that_is_none_is_one_line_that_names_it(size: str, wrong: object) -> None:
    found = "missing" if wrong is None else repr(wrong)
    with pytest.raises(BlueprintError) as caught:
        blueprint(LLAMA | {size: wrong})
    assert str(caught.value) == f"llama: {size} is {found}, not a positive number"


@pytest.mark.parametrize("config", [{}, {"model_type": None}, {"hidden_size": 64}])
def test_a_configuration_without_a_family_says_so(config: dict[str, Any]) -> None:
    with pytest.raises(BlueprintError, match=r"^the configuration has no model_type$"):
        blueprint(config)


def test_an_unknown_family_is_read_as_the_layout_of_llama() -> None:
    def facts_of(family: str) -> Blueprint:
        return blueprint(LLAMA | {"model_type": family})

    assert facts_of("newcomer") == facts_of("llama").model_copy(update={"family": "newcomer"})


def test_the_language_part_of_a_model_of_several_modalities_is_what_counts() -> None:
    whole = {"model_type": "gemma3", "vision_config": {"hidden_size": 7}, "text_config": LLAMA}
    assert blueprint(whole) == blueprint(LLAMA)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gemma-3-270m", "RoPE θ=1,000,000 local θ=10,000"),
        ("llama-3.1-8b", "RoPE θ=500,000 llama3 ×8"),
        ("pythia-160m", "RoPE θ=10,000 25% of a head"),
        ("bloom-560m", "ALiBi"),
        ("gpt2", "learned"),
    ],
)
def test_positions_are_told_in_a_few_words(name: str, said: str) -> None:
    assert str(fleet()[name].blueprint.position) == said
