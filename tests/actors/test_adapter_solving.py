"""A step that is solved for goes where the loss falls, in every family."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.adapter_refit import Relearning, changes
from actors.adapter_solving import Solving, falls, solve_adapter
from actors.engine import Engine, load
from actors.examples import Example
from actors.matrices import places, weight
from tests.actors.drawn import drawn_adapter

TOKENS = np.arange(2, 260)


def test_an_adapter_is_solved_for_in_every_family(
    engine: Engine, sentences: tuple[str, ...]
) -> None:
    texts = [Example(each) for each in (*sentences, *sentences)]  # solved on, and looked at
    before = {place: weight(engine, at).clone() for place, at in places(engine).items()}
    _, taught = changes(engine, drawn_adapter(engine, 0.05), texts, TOKENS)
    solved = solve_adapter(engine, texts, taught, len(sentences), TOKENS, Solving(rank=4, steps=2))
    plain, once, twice = solved.held_out
    assert twice <= once < 0.9 * plain
    assert {each.rank for each in solved.best.values()} == {4}
    assert all(weight(engine, at).equal(before[place]) for place, at in places(engine).items())
    again = solve_adapter(engine, texts, taught, len(sentences), TOKENS, Solving(rank=4, steps=2))
    assert again.held_out == solved.held_out


def test_where_no_step_helps_nothing_is_changed(
    checkpoint: Callable[[str], Path], sentences: tuple[str, ...]
) -> None:
    engine = load(checkpoint("llama"))
    texts = [Example(each) for each in sentences]
    _, taught = changes(engine, drawn_adapter(engine, 0.05), texts, TOKENS)
    solved = solve_adapter(engine, texts, taught, 2, TOKENS, Solving(lengths=(1e3,)))
    assert solved.held_out[0] == solved.held_out[1]
    assert all(not each.matrix.any() for each in solved.best.values())
    assert solved.best.keys() == places(engine).keys()


@pytest.mark.parametrize("case", ["llama", "gpt2"])
@pytest.mark.parametrize("there_already", [False, True])
def test_where_the_loss_falls_is_its_gradient(
    case: str,
    there_already: bool,
    checkpoint: Callable[[str], Path],
    sentences: tuple[str, ...],
) -> None:
    engine = load(checkpoint(case))
    texts = [Example(each) for each in sentences]
    _, taught = changes(engine, drawn_adapter(engine, 0.05), texts, TOKENS)
    course = Relearning(engine, texts, taught, 2, TOKENS, 0.5)
    here = {}
    if there_already:
        here = {place: each.scaled(0.3) for place, each in drawn_adapter(engine, 0.05).items()}
    found, read = falls(engine, course, here)
    engine.model.requires_grad_(True)
    course.step(range(course.count), here)
    for place, at in places(engine).items():
        held = dict(engine.model.get_submodule(at.module).named_parameters())["weight"]
        assert held.grad is not None
        whole = held.grad.mT if case == "gpt2" else held.grad
        torch.testing.assert_close(found[place], whole[at.rows], atol=1e-6, rtol=1e-3)
    assert read > 0
