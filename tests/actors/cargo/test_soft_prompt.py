"""Soft prompts in PEFT's format: read, put on, trained and written as PEFT itself does it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from actors.cargo.peft_files import WEIGHTS_FILE, AdapterError
from actors.cargo.soft_prompt import SoftPrompt, read_prompt, write_prompt
from actors.encoding import encode
from actors.engine import Engine, load
from actors.examples import Example, foreseen
from actors.prompt_training import PromptTraining, train_prompt
from actors.prompting import prompting
from tests.deprecated import PEFT

pytestmark = PEFT
COUNT = 3


def drawn_prompt(engine: Engine) -> torch.Tensor:
    width = engine.embeddings(torch.tensor([[0]])).shape[-1]
    return torch.randn((COUNT, width), generator=torch.Generator().manual_seed(0))


def logits(engine: Engine, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return engine.logits(engine.states(ids))


def test_a_prompt_is_read_as_by_peft(
    engine: Engine, sentences: tuple[str, ...], tmp_path: Path
) -> None:
    rows = drawn_prompt(engine)
    write_prompt(SoftPrompt(rows), tmp_path, "somebody/model")
    kept = read_prompt(tmp_path, rows.shape[1])
    assert kept.base == "somebody/model"
    assert kept.rows.equal(rows)
    ids = encode(engine, sentences[:1]).ids
    plain = logits(engine, ids)
    with prompting(engine, kept.rows):
        ours = logits(engine, ids)
    assert logits(engine, ids).equal(plain), "it is off again"
    prompted = PeftModel.from_pretrained(engine.model, str(tmp_path)).eval()
    with torch.inference_mode():
        theirs = prompted(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, COUNT:]
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=1e-4)
    assert (ours - plain).abs().max() > 1e-3


def test_what_peft_writes_is_read(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"))
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=COUNT)
    theirs = get_peft_model(model, config)
    theirs.save_pretrained(str(tmp_path))
    rows = read_prompt(tmp_path, model.config.hidden_size).rows
    assert rows.equal(theirs.get_prompt_embedding_to_save("default"))


def test_what_is_no_prompt_of_the_model_is_refused_in_a_line(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = drawn_prompt(load(checkpoint("llama")))
    width = rows.shape[1]

    def refused(wide: int = width) -> str:
        with pytest.raises(AdapterError) as caught:
            read_prompt(tmp_path, wide)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is no PEFT directory" in refused()
    write_prompt(SoftPrompt(rows), tmp_path, "x")
    assert f"{COUNT} rows of {width} numbers; the model's embeddings have 7" in refused(7)
    write_prompt(SoftPrompt(rows / 0), tmp_path, "x")
    assert "has NaN or Inf in it" in refused()
    (tmp_path / WEIGHTS_FILE).write_bytes(b"no")
    assert "is damaged" in refused()
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace("PROMPT_TUNING", "P_TUNING"))
    assert "its peft_type is P_TUNING; PROMPT_TUNING can be carried" in refused()


def test_a_prompt_is_trained_and_the_model_left_as_it_was(
    engine: Engine, sentences: tuple[str, ...]
) -> None:
    before = {name: each.clone() for name, each in engine.model.named_parameters()}
    examples = [Example(each) for each in sentences]
    training = PromptTraining(count=COUNT, batch=2, epochs=6)
    made = train_prompt(engine, examples, examples, training)
    assert made.best.shape == drawn_prompt(engine).shape
    assert min(made.held_out[1:]) < made.held_out[0]
    assert made.tokens == 6 * sum(encode(engine, sentences).lengths)
    with prompting(engine, made.best):
        nats, tokens = foreseen(engine, examples)
    assert float(nats.sum() / tokens.sum()) == pytest.approx(min(made.held_out[1:]), rel=1e-4)
    assert all(each.equal(before[name]) for name, each in engine.model.named_parameters())
    again = train_prompt(engine, examples, examples, training)
    assert again.best.equal(made.best)
