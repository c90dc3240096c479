"""Hypotheses are decided by whole intervals, and by nothing else."""

from collections.abc import Callable

import pytest

from evaluation.cargos.lora import AdapterCell
from evaluation.hypotheses import hypotheses
from evaluation.matrix import Matrix
from evaluation.retention import Interval
from evaluation.safety import Drift


@pytest.fixture
def cell(made_up: Callable[..., Matrix]) -> AdapterCell:
    return made_up(2, skills=("rust",)).adapters[0]


def with_kept(cell: AdapterCell, *kept: tuple[float, float] | None) -> list[AdapterCell]:
    return [
        cell.model_copy(
            update={"retention": None if each is None else Interval(sum(each) / 2, *each)}
        )
        for each in kept
    ]


def with_drift(
    cell: AdapterCell, *drifts: tuple[float, float], refused: float = 0.5
) -> list[AdapterCell]:
    before, whole = Interval(refused, 0.0, 0.6), Interval(0.5, 0.4, 0.6)
    return [
        cell.model_copy(
            update={"safety": Drift(before, whole, whole, whole, Interval(sum(of) / 2, *of), whole)}
        )
        for of in drifts
    ]


@pytest.mark.parametrize(
    ("kept", "verdict"),
    [
        ([(0.1, 0.2), (0.51, 0.9)], "supported"),
        ([(0.1, 0.2), (0.49, 0.9)], "undecided"),
        ([(0.1, 0.2), (-0.3, 0.29), None], "falsified"),
        ([(0.1, 0.31)], "undecided"),
        ([None], "undecided"),
        ([], "undecided"),
    ],
)
def test_whether_a_skill_can_cross(
    cell: AdapterCell, kept: list[tuple[float, float] | None], verdict: str
) -> None:
    first, _ = hypotheses(with_kept(cell, *kept))
    assert (first.name, first.verdict) == ("H1", verdict)
    defined = [each for each in kept if each]
    assert (first.value is None) == (not defined)


@pytest.mark.parametrize(
    ("drifts", "verdict"),
    [
        ([(-0.1, 0.05), (0.0, 0.09)], "supported"),
        ([(-0.1, 0.05), (0.0, 0.11)], "undecided"),
        ([(-0.1, 0.05), (0.21, 0.4)], "falsified"),
        ([], "undecided"),
    ],
)
def test_whether_it_is_safe(
    cell: AdapterCell, drifts: list[tuple[float, float]], verdict: str
) -> None:
    _, second = hypotheses(with_drift(cell, *drifts))
    assert (second.name, second.verdict) == ("H2", verdict)


def test_who_refuses_nothing_supports_nothing(cell: AdapterCell) -> None:
    nothing_lost = with_drift(cell, (0.0, 0.0), refused=0.02)
    _, alone = hypotheses(nothing_lost)
    assert (alone.verdict, alone.value) == ("undecided", None)
    _, beside = hypotheses([*nothing_lost, *with_drift(cell, (0.0, 0.09))])
    assert beside.verdict == "supported"
