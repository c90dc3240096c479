"""What is to be foreseen is read once where options come after the same text."""

from itertools import product

import pytest
from torch import Tensor

from actors.engine import Engine
from actors.examples import TOKENS_A_PASS, Example, foreseen, passes

GIVEN = ("The ferry was", "A long way off, the harbour")
RIGHT = (" late", " a", " to", " in fog at last")


def test_options_are_read_once_and_cost_what_each_does_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [Example(given + right, len(given)) for given, right in product(GIVEN, RIGHT)]
    alone = [foreseen(engine, [each]) for each in examples]
    read, states = [], Engine.states

    def counted(tree: Engine, ids: Tensor) -> Tensor:
        read.extend(ids.tolist())
        return states(tree, ids)

    monkeypatch.setattr(Engine, "states", counted)
    nats, tokens = foreseen(engine, examples)
    assert nats == pytest.approx([float(of[0]) for of, _ in alone], rel=1e-4)
    assert tokens.tolist() == [int(of[0]) for _, of in alone]
    encoded = [engine.tokenizer(each.text)["input_ids"] for each in examples]
    assert len(read) == len({tuple(ids[:-1]) for ids in encoded})


def test_many_that_begin_alike_are_no_larger_a_pass(engine: Engine) -> None:
    alike = [Example(f"The ferry was late on day {day} of the month", 3) for day in range(400)]
    found = list(passes(engine, alike))
    assert sorted(number for each in found for number in each.numbers) == list(range(400))
    assert max(each.ids.shape[0] for each in found) <= TOKENS_A_PASS // (len(alike[0].text) // 3)
