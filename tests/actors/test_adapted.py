"""What a model foresees and writes with adapters on, against the model without any."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.adapted import Updates, answered_with, asked, continued, foreseen_with, written_with
from actors.adapting import adapting
from actors.encoding import encode, said_after
from actors.engine import Engine, load
from actors.examples import Example, foreseen
from tests.actors.drawn import drawn_adapter

PROMPTS = ["She", "The ferry crosses the narrow", "Nobody told her that it"]


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt2", "bloom"])
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Engine:
    return load(checkpoint(request.param))


@pytest.fixture(scope="module")
def adapters(engine: Engine) -> list[Updates]:
    """None, and one that changes a good deal."""
    return [{}, drawn_adapter(engine, 0.2)]


def test_each_adapter_foresees_for_itself(engine: Engine, adapters: list[Updates]) -> None:
    examples = [Example(prompt, 3) for prompt in PROMPTS[1:]]
    found, (tokens, _) = zip(
        *(foreseen_with(engine, examples, each) for each in adapters), strict=True
    )
    plain, count = foreseen(engine, examples)
    np.testing.assert_array_equal(found[0], plain)
    np.testing.assert_array_equal(tokens, count)
    with adapting(engine, adapters[1]):
        changed, _ = foreseen(engine, examples)
    np.testing.assert_array_equal(found[1], changed)
    assert not np.allclose(changed, plain)


def test_prompts_are_gone_on_with_together_as_alone(
    engine: Engine, adapters: list[Updates]
) -> None:
    together = [written_with(engine, PROMPTS, each, 6) for each in adapters]
    alone = [
        [written_with(engine, [prompt], each, 6)[0] for prompt in PROMPTS] for each in adapters
    ]
    assert together == alone
    assert together[0] != together[1]


def test_requests_are_put_as_the_model_is_spoken_to(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(engine, ["Hello."]) == ["User: Hello.\nAssistant:"]
    template = "{{ bos_token }}{% for each in messages %}<{{ each.role }}>{{ each.content }}"
    template += "{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
    monkeypatch.setattr(engine.tokenizer, "chat_template", template)
    assert asked(engine, ["Hello."]) == ["<user>Hello.<model>"]
    assert answered_with(engine, ["Hello."], {}, 5) == continued(engine, ["<user>Hello.<model>"], 5)


def test_what_is_drawn_is_drawn_by_its_chances(engine: Engine) -> None:
    torch.manual_seed(3)
    texts = continued(engine, PROMPTS[:1] * 1500, 1, drawn=True)
    ids = encode(engine, PROMPTS[:1]).ids
    with torch.inference_mode():
        chances = engine.logits(engine.states(ids))[0, -1].softmax(-1)
    for token in chances.topk(3).indices.tolist():
        said = said_after(engine, [*ids[0].tolist(), token], ids.shape[1])
        among = sum(
            float(chance)
            for other, chance in enumerate(chances)
            if said_after(engine, [*ids[0].tolist(), other], ids.shape[1]) == said
        )
        share = texts.count(said) / len(texts)
        assert abs(share - among) < 4 * (among * (1 - among) / len(texts)) ** 0.5
