"""From a checkpoint directory to a live model."""

import json
import shutil
import timeit
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, StableLmConfig, StableLmForCausalLM

from actors.architectures import ARCHITECTURES, UnknownArchitecture
from actors.encoding import encode
from actors.engine import Engine, EngineError, load
from actors.module_tree import scores


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint of a Llama, to be spoilt."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "copied"))


def test_a_model_is_loaded_to_be_asked_not_trained(engine: Engine) -> None:
    assert not engine.model.training
    assert not any(weights.requires_grad for weights in engine.model.parameters())
    assert (engine.width, len(engine.blocks), engine.context) == (32, 3, 128)


def test_the_precision_is_as_asked(
    checkpoint: Callable[[str], Path], sentences: tuple[str, ...]
) -> None:
    engine = load(checkpoint("qwen2"), "bfloat16")
    assert {weights.dtype for weights in engine.model.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        states = engine.states(encode(engine, sentences).ids)
        assert states.dtype == torch.bfloat16
        assert engine.logits(states).dtype == torch.float32


def seconds(call: Callable[[], object]) -> float:
    """What it takes, at best."""
    return min(timeit.repeat(call, number=1, repeat=3))


def test_a_head_in_half_precision_takes_part_of_a_batch_as_it_takes_rows(
    checkpoint: Callable[[str], Path],
) -> None:
    """A CPU may take a hundred times as long over a slice, in the model itself as well."""
    engine = load(checkpoint("qwen2"), "bfloat16")
    wide = torch.nn.Parameter(torch.randn(2**16, 256).bfloat16(), requires_grad=False)
    head = engine.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    states = torch.randn(4, 24, 256).bfloat16()
    part, rows = states[:, -8:], states[:, -8:].reshape(-1, 256)
    with torch.inference_mode():
        expected = torch.nn.functional.linear(rows, wide).view(4, 8, -1)
        head.weight = wide
        for scored in (lambda: scores(part, wide, None, None), lambda: head(part)):
            torch.testing.assert_close(scored(), expected)
            plain = seconds(lambda: torch.nn.functional.linear(rows, wide))
            assert seconds(scored) < 10 * plain


def test_a_family_that_is_not_in_the_table_is_made_out(
    copied: Path, sentences: tuple[str, ...]
) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vocabulary = json.loads((copied / "config.json").read_text())["vocab_size"]
    config = StableLmConfig(
        vocab_size=vocabulary, num_attention_heads=4, num_key_value_heads=2, **sizes
    )
    StableLmForCausalLM(config).save_pretrained(copied)
    engine = load(copied)
    assert engine.model.config.model_type == "stablelm"
    assert engine.architecture == ARCHITECTURES["llama"]
    ids = encode(engine, sentences[:1]).ids
    with torch.inference_mode():
        own = engine.model(input_ids=ids).logits
        torch.testing.assert_close(engine.logits(engine.states(ids)), own)


def test_a_model_without_a_stated_context_has_one_all_the_same(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(checkpoint("bloom"), tmp_path / "bare"))
    config = json.loads((bare / "config.json").read_text())
    del config["seq_length"]
    BloomConfig(**config).save_pretrained(bare)
    assert load(bare).context == 2048


def test_what_cannot_be_loaded_is_said_in_one_line(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match=r"^.*copied lacks the weights model\.norm\.weight\Z"):
        load(copied)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    with pytest.raises(UnknownArchitecture, match=r"^t5: .* no causal language model .* bloom, "):
        load(copied)
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "tokenizer.json").unlink()
    with pytest.raises(EngineError, match=r"^.*copied has no tokenizer\.json: .*\Z"):
        load(copied)
