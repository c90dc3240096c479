"""Adapters of PEFT in and out, in every family, by what the model says with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from actors.adapting import adapting
from actors.cargo.lora import read_adapter, write_adapter
from actors.cargo.peft_files import CONFIG_FILE, WEIGHTS_FILE, AdapterError
from actors.engine import load
from actors.matrices import outline, places
from tests.deprecated import PEFT

pytestmark = [  # of PEFT itself
    PEFT,
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]
IDS = torch.tensor([[1, 5, 9, 13, 2, 7]])


def loaded(checkpoint: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()


@torch.inference_mode()
def logits(model: torch.nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


def made(checkpoint: Path, directory: Path, **more: Any) -> Tensor:
    """A random adapter of all places, by PEFT itself, and the logits of the model with it."""
    where = places(outline(checkpoint)).values()
    modules = sorted({each.module for each in where if each.expert is None})
    parameters = sorted({each.module for each in where if each.expert is not None})
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=modules,
        target_parameters=parameters,
        r=3,
        lora_alpha=7,
        rank_pattern={modules[0]: 2},
        **more,
    )
    torch.manual_seed(0)
    model = get_peft_model(loaded(checkpoint), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(str(directory))
    return logits(model)


@pytest.fixture(scope="module")
def plain(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plain") / "adapter"
    made(checkpoint("llama"), directory)
    return directory


def test_an_adapter_is_read_and_written_in_every_family(
    case: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    wanted = made(checkpoint(case), tmp_path / "a", use_rslora=True)
    where = places(outline(checkpoint(case)))
    adapter = read_adapter(tmp_path / "a", where)
    assert set(adapter.updates) == set(where)

    engine = load(checkpoint(case))
    plain = logits(engine.model)
    assert (plain - wanted).abs().max() > 0.01
    with adapting(engine, adapter.updates):
        torch.testing.assert_close(logits(engine.model), wanted, atol=1e-4, rtol=1e-4)
    assert logits(engine.model).equal(plain), "nothing of the model is changed"

    write_adapter(adapter, where, tmp_path / "b", "tiny")
    again = PeftModel.from_pretrained(loaded(checkpoint(case)), str(tmp_path / "b"))
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)
    ranks = [
        len(each) // (4 if ".experts." in name else 1)  # their ranks lie one after the other
        for name, each in load_file(tmp_path / "b" / WEIGHTS_FILE).items()
        if "A." in name
    ]
    assert max(ranks) == 3, "layers of several roles keep the rank that they share"


def changed(plain: Path, to: Path, config: dict[str, Any], **tensors: Tensor | None) -> Path:
    """A copy with other settings and tensors; None takes one away."""
    to.mkdir()
    settings = json.loads((plain / CONFIG_FILE).read_text()) | config
    (to / CONFIG_FILE).write_text(json.dumps(settings))
    held = load_file(plain / WEIGHTS_FILE) | tensors
    save_file({name: each for name, each in held.items() if each is not None}, to / WEIGHTS_FILE)
    return to


DOWN = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
UP = DOWN.replace("lora_A", "lora_B")
RANKS = {"model.layers.0.mlp.down_proj": 2}  # of `plain`


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"peft_type": "IA3"}, {}, "peft_type is IA3"),
        ({"use_dora": True}, {}, "use_dora is True"),
        ({"bias": "all"}, {}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "begun as pissa"),
        ({}, {UP: None}, "of model.layers.1.mlp.up_proj there is lora_A.weight alone"),
        ({}, {DOWN: torch.ones(2, 32)}, "rank 2 in lora_A, 3 in lora_B"),
        ({}, {UP: None, DOWN: None}, "says that model.layers.1.mlp.up_proj is changed"),
        ({"target_modules": "("}, {}, "names no layers"),
        ({"r": 16}, {}, "has rank 3, and 16 by adapter_config.json"),
        ({"rank_pattern": {**RANKS, "layers.1.mlp.up_proj": 5}}, {}, "has rank 3, and 5 by"),
        ({"lora_alpha": None}, {}, "lora_alpha None over rank"),
        ({"lora_alpha": "16"}, {}, "lora_alpha '16' over rank"),
        (
            {"rank_pattern": {**RANKS, "layers.1.mlp.up_proj": 0}},
            {DOWN: torch.ones(0, 32), UP: torch.ones(64, 0)},
            "lora_alpha 7 over rank 0",
        ),
        ({}, {DOWN: torch.ones(3, 31)}, "of 31 to 64 numbers, and the model's is of 32 to 64"),
        ({}, {DOWN: torch.full((3, 32), torch.nan)}, "NaN or Inf"),
        ({}, {DOWN.replace("layers.1", "layers.9"): torch.ones(3, 32)}, "layers.9"),
        ({}, {"model.embed.lora_embedding_A": torch.ones(3, 2)}, "lora_embedding_A is none of"),
    ],
)
def test_what_is_no_adapter_of_the_model_is_refused_in_one_line(
    plain: Path,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    config: dict[str, Any],
    tensors: dict[str, Tensor | None],
    said: str,
) -> None:
    broken = changed(plain, tmp_path / "x", config, **tensors)
    with pytest.raises(AdapterError) as refused:
        read_adapter(broken, places(outline(checkpoint("llama"))))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_pickled_damaged_and_missing_files_are_refused(
    plain: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    where = places(outline(checkpoint("llama")))
    broken = changed(plain, tmp_path / "x", {})
    with pytest.raises(AdapterError, match="no PEFT directory"):
        read_adapter(tmp_path, where)
    (broken / WEIGHTS_FILE).write_bytes((broken / WEIGHTS_FILE).read_bytes()[:200])
    with pytest.raises(AdapterError, match="damaged"):
        read_adapter(broken, where)
    (broken / WEIGHTS_FILE).rename(broken / "adapter_model.bin")
    with pytest.raises(AdapterError, match="pickled"):
        read_adapter(broken, where)
