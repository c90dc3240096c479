"""A prompt that PEFT made, carried into another model, as a user does it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from actors.cargo.peft_files import CONFIG_FILE
from actors.cargo.soft_prompt import read_prompt
from jobs.__main__ import USER_ERROR
from tests.deprecated import PEFT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    PEFT,
]
SOURCE, TARGET, ROWS = "tiny-llama", "tiny-gemma", 4
Verb = Callable[..., tuple[object, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    return tiny_run(tmp_path_factory.mktemp("carry-prompt"))


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> Path:
    model = AutoModelForCausalLM.from_pretrained(tiny_models[SOURCE])
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=ROWS)
    directory = tmp_path_factory.mktemp("prompt")
    get_peft_model(model, config).save_pretrained(str(directory))
    return directory


@pytest.fixture
def carry(run_verb: Verb, run: Path, prompt: Path, tmp_path: Path) -> Verb:
    def go(*more: object, of: Path = prompt) -> tuple[object, str, str]:
        ends = ("--from", SOURCE, "--to", TARGET, "--run", run, "-o", tmp_path / "out")
        return run_verb("carry", "soft_prompt", of, *ends, *more)

    return go


def test_it_is_carried_and_peft_puts_it_on(
    carry: Verb, prompt: Path, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    code, printed, complained = carry()
    assert code == 0, printed + complained
    assert f"{ROWS} rows, " in printed
    out = tmp_path / "out"
    record = json.loads((out / "carried.json").read_text())
    assert (record["source"], record["target"], record["rows"]) == (SOURCE, TARGET, ROWS)
    models = {
        name: AutoModelForCausalLM.from_pretrained(tiny_models[name]) for name in (SOURCE, TARGET)
    }
    mine, theirs = (
        read_prompt(at, models[name].config.hidden_size).rows
        / models[name].get_input_embeddings()(torch.arange(2, 200)).square().mean().sqrt()
        for at, name in ((prompt, SOURCE), (out, TARGET))
    )
    both = [float(rows.detach().square().mean().sqrt()) for rows in (mine, theirs)]
    assert both[1] == pytest.approx(both[0], rel=0.3), "as large beside embeddings"
    ids = torch.tensor([[5, 9, 30, 2]])
    with torch.no_grad():
        plain = models[TARGET](ids).logits
        read = PeftModel.from_pretrained(models[TARGET], str(out))(ids).logits[:, ROWS:]
    assert (read - plain).abs().max() > 1e-3


def test_what_cannot_be_carried_is_refused_in_a_line(
    carry: Verb, prompt: Path, tmp_path: Path
) -> None:
    def refused(*more: object, of: Path = prompt) -> str:
        code, printed, complained = carry(*more, of=of)
        assert code == USER_ERROR, printed + complained
        assert not (tmp_path / "out").exists()
        assert "Traceback" not in complained
        return complained.splitlines()[-1]

    assert "no fitter 'ridgy'; did you mean ridge?" in refused("--fitter", "ridgy")
    assert "is no PEFT directory" in refused(of=tmp_path)
    config = tmp_path / CONFIG_FILE
    config.write_text((prompt / CONFIG_FILE).read_text().replace("PROMPT_TUNING", "LORA"))
    assert "its peft_type is LORA; PROMPT_TUNING can be carried" in refused(of=tmp_path)
