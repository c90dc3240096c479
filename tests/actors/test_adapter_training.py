"""Training of adapters, against PEFT's own gradients and on something that can be learned."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from actors.adapter_training import AdapterTraining, begun, train_adapter
from actors.adapting import adapting
from actors.engine import Engine, load
from actors.examples import Example, foreseen, nats, passes
from actors.matrices import places
from alignment.updates import Update
from tests.deprecated import PEFT

SAID = "The ferry crosses the narrow strait"


@pytest.fixture(scope="module")
def gemma(checkpoint: Callable[[str], Path]) -> Engine:
    return load(checkpoint("gemma3_text"))


@PEFT
def test_gradients_are_those_of_peft(gemma: Engine, checkpoint: Callable[[str], Path]) -> None:
    training, where = AdapterTraining(rank=3), places(gemma)
    factors = begun(where, training, torch.device("cpu"))
    torch.manual_seed(1)
    with torch.no_grad():
        for up, _ in factors.values():
            up.normal_(std=0.1)
    (some,) = passes(gemma, [Example(SAID, 10), Example("Nobody told her", 0)])
    with adapting(gemma, {place: Update(*pair) for place, pair in factors.items()}):
        nats(gemma, some).sum().backward()

    modules = [each.module for each in where.values()]
    other = load(checkpoint("gemma3_text")).model
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=modules, r=3, lora_alpha=3)
    model = get_peft_model(other, config)
    names = {each.module: place for place, each in where.items()}
    theirs = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                module = name.removeprefix("base_model.model.").partition(".lora_")[0]
                pair = factors[names[module]]
                parameter.copy_(pair["lora_B" not in name])
                theirs[name] = (parameter, pair["lora_B" not in name])
    chances = model(input_ids=some.ids).logits[:, :-1].log_softmax(-1)
    own = chances.gather(2, some.ids[:, 1:, None])[..., 0]
    (-own[some.judged[:, 1:]].sum()).backward()
    assert len(theirs) == 2 * len(where)
    for parameter, mine in theirs.values():
        torch.testing.assert_close(mine.grad, parameter.grad, atol=1e-4, rtol=1e-3)


def test_only_what_follows_the_start_is_judged(gemma: Engine) -> None:
    examples = [Example(SAID, 9), Example("She reads", 0)]
    (some,) = passes(gemma, examples)
    said = {
        number: gemma.tokenizer.decode(row[of])
        for number, row, of in zip(some.numbers, some.ids, some.judged, strict=True)
    }
    assert said == {0: SAID[9:], 1: "She reads"}
    costs, tokens = foreseen(gemma, examples)
    alone = [foreseen(gemma, [each]) for each in examples]
    np.testing.assert_allclose(costs, [float(cost[0]) for cost, _ in alone], rtol=1e-5)
    assert tokens.tolist() == [int(count[0]) for _, count in alone]


def test_what_is_taught_is_learned_and_the_model_is_left_alone(gemma: Engine) -> None:
    before = {name: each.clone() for name, each in gemma.model.named_parameters()}
    examples = [Example(f"{number} {SAID}", len(str(number))) for number in range(24)]
    training = AdapterTraining(rank=4, learning_rate=1e-2, batch=6, epochs=3)
    made = train_adapter(gemma, examples[:20], examples[20:], training)
    assert made.held_out[-1] < 0.5 * made.held_out[0]
    assert len(made.held_out) == 4
    read = sum(each.ids.numel() for each in passes(gemma, examples[:20]))
    assert made.tokens == pytest.approx(3 * read, rel=0.2)
    again = train_adapter(gemma, examples[:20], examples[20:], training)
    for place, update in made.best.items():
        assert np.array_equal(update.up, again.best[place].up), "the same to the bit"
    for name, each in gemma.model.named_parameters():
        assert each.equal(before[name])
        assert each.grad is None


def test_the_epoch_that_does_best_on_what_is_held_out_is_kept(gemma: Engine) -> None:
    examples = [Example(f"{number} {SAID}", len(str(number))) for number in range(12)]
    other = [Example("Nobody told her that it rained")]
    once = AdapterTraining(rank=4, learning_rate=3e-2, batch=6, epochs=6)
    made = train_adapter(gemma, examples, other, once)
    with adapting(gemma, made.best):
        costs, tokens = foreseen(gemma, other)
    best = min(made.held_out[1:])
    assert best < made.held_out[-1], "it forgets, in the end"
    assert costs.sum() / tokens.sum() == pytest.approx(best, rel=1e-5)
