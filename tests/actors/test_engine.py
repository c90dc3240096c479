"""From a checkpoint directory to a live model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from actors.architectures import UnknownArchitecture
from actors.encoding import encode
from actors.engine import Engine, EngineError, load


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


def test_what_cannot_be_loaded_is_said_in_one_line(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint("llama"), broken)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(EngineError, match=r"^.*broken has no tokenizer\.json: .*\Z"):
        load(broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "opt"}))
    with pytest.raises(UnknownArchitecture, match="'opt' is not supported"):
        load(broken)
