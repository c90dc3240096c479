"""An adapter that PEFT made, carried into another model, as a user does it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from jobs.__main__ import USER_ERROR
from tests.deprecated import PEFT
from tests.jobs.test_adapters import SECTION

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    PEFT,
]

SOURCE, TARGET = "tiny-llama", "tiny-gemma"
Verb = Callable[..., tuple[object, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("carry-lora"), lora=SECTION)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> Path:
    """One of the source that changes a good deal."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_models[SOURCE])
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"])
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.3)
    directory = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(str(directory))
    return directory


@pytest.fixture
def carry(run_verb: Verb, run: Path, tmp_path: Path) -> Verb:
    def go(adapter: Path, *more: object) -> tuple[object, str, str]:
        ends = ("--from", SOURCE, "--to", TARGET, "--run", run, "-o", tmp_path / "out")
        return run_verb("carry", "lora", adapter, *ends, *more)

    return go


def test_it_is_carried_and_peft_puts_it_on(
    carry: Verb, adapter: Path, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    code, printed, complained = carry(adapter, "--read", "anchors", "--texts", 80)
    assert code == 0, printed + complained
    assert "of what the adapter changes on held-out texts" in printed
    assert "layers   of tiny-gemma with a partner in tiny-llama: " in printed
    out = tmp_path / "out"
    model = AutoModelForCausalLM.from_pretrained(tiny_models[TARGET])
    ids = torch.tensor([[5, 9, 30, 2]])
    with torch.no_grad():
        plain = model(ids).logits
        carried = PeftModel.from_pretrained(model, str(out))(ids).logits
    assert (carried - plain).abs().max() > 0.01
    record = json.loads((out / "carried.json").read_text())
    assert (record["source"], record["target"]) == (SOURCE, TARGET)
    assert (record["how"], record["read"]) == ("refit", "anchors")
    assert record["kl_after"] < record["kl_before"]
    assert "PeftModel.from_pretrained" in (out / "README.txt").read_text()

    shutil.rmtree(out)
    before = record
    code, printed, complained = carry(adapter, "--read", "anchors", "--texts", 80)
    assert code == 0, printed + complained
    assert "loading" not in complained, "every answer is there"
    assert json.loads((out / "carried.json").read_text()) == before


@pytest.mark.long
def test_where_too_few_layers_are_alike_it_is_asked_for_twice(
    carry: Verb, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.carry_lora.LEAST", 1.01)
    said = refused(carry(adapter), tmp_path)
    assert "are more like one of the source than by chance, and 101% are needed" in said
    assert said.endswith("--force carries it all the same")
    code, printed, complained = carry(adapter, "--force")
    assert code == 0, printed + complained


@pytest.mark.parametrize("how", ["refit", pytest.param("solved", marks=pytest.mark.long)])
def test_on_texts_of_its_own(how: str, carry: Verb, adapter: Path, tmp_path: Path) -> None:
    code, printed, complained = carry(adapter, "--how", how, "--tokens", 8)
    assert code == 0, printed + complained
    assert "writing texts" in complained or how == "solved", "which takes those of the refit"
    assert f"{how} " in printed
    record = json.loads((tmp_path / "out" / "carried.json").read_text())
    assert (record["how"], record["read"]) == (how, "own")
    assert record["kl_after"] < record["kl_before"]


@pytest.mark.long  # a judgement has a form as well
def test_a_skill_is_asked_for_in_its_form(carry: Verb, adapter: Path, tmp_path: Path) -> None:
    said = refused(carry(adapter, "--form", "Review:"), tmp_path)
    assert said.endswith("--form 'Review:': it has to have {} once, where words go")
    code, printed, complained = carry(adapter, "--form", "Review: {}\\nSentiment:", "--tokens", 2)
    assert code == 0, printed + complained
    record = json.loads((tmp_path / "out" / "carried.json").read_text())
    assert record["form"] == "Review: {}\nSentiment:"
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_a_judgement_is_asked_of_what_the_source_writes(
    carry: Verb, adapter: Path, tmp_path: Path
) -> None:
    said = refused(carry(adapter, "--judgement"), tmp_path)
    assert said.endswith("with --form, and without --read anchors")
    order = ("--judgement", "--form", "Review: {}\\nSentiment:")
    code, printed, complained = carry(adapter, *order)
    assert code == 0, printed + complained
    assert "writing what is judged" in complained
    record = json.loads((tmp_path / "out" / "carried.json").read_text())
    assert record["judgement"]
    assert record["kl_after"] < record["kl_before"]


def refused(answer: tuple[object, str, str], tmp_path: Path) -> str:
    code, printed, complained = answer
    assert code == USER_ERROR, printed + complained
    assert not (tmp_path / "out").exists()
    *_, last = complained.splitlines()
    assert "Traceback" not in complained
    return last


def test_an_adapter_of_another_model_is_refused(carry: Verb, adapter: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((mine / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "somebody/Other-1B"}
    (mine / "adapter_config.json").write_text(json.dumps(config))
    said = refused(carry(mine), tmp_path)
    assert "it says it was made for somebody/Other-1B, not for tiny-llama" in said
    code, printed, complained = carry(mine, "--any-base")
    assert code == 0, printed + complained


def test_what_cannot_be_carried_is_one_line(
    carry: Verb, adapter: Path, run_verb: Verb, run: Path, tmp_path: Path
) -> None:
    assert "is no PEFT directory" in refused(carry(tmp_path / "none"), tmp_path)
    for texts in (3, 5000):
        said = refused(carry(adapter, "--texts", texts), tmp_path)
        assert f"{texts} texts to learn on: at least 8" in said
        assert said.endswith("at most the run's 240 anchors")
    order = ("--from", TARGET, "--to", SOURCE, "--run", run, "-o", tmp_path / "out")
    said = refused(run_verb("carry", "lora", adapter, *order), tmp_path)
    assert "the model's is of" in said
    config, plain = adapter / "adapter_model.safetensors", tmp_path / "pickled"
    shutil.copytree(adapter, plain)
    (plain / config.name).rename(plain / "adapter_model.bin")
    assert "is pickled and may run any code" in refused(carry(plain), tmp_path)
