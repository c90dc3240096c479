"""Questions to a model whose process dies at one of them: all are answered, each is kept once."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle
from rich.console import Console

from actors.catalog import ModelFacts
from actors.checkpoints import facts
from cluster.gang import ActorLost, Gang
from cluster.storage import DirectoryStore
from jobs.progress import Reporter
from jobs.units import Asking, Unit
from jobs.waves import Crew

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
# The tests are not shipped: the class of theirs travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
NAME = "tiny-llama"


class Frail:
    """A host whose process dies as often as it finds a file that says so."""

    def __init__(self, known: ModelFacts, marks: Path) -> None:
        self._known, self._marks = known, marks

    def facts(self) -> ModelFacts:
        return self._known

    def squared(self, number: int) -> np.ndarray:
        (self._marks / f"asked {number} {os.urandom(4).hex()}").touch()
        for mark in self._marks.glob(f"deadly {number} *"):
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([number**2])


@pytest.fixture
def asking(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> Iterator[Callable[[int], tuple[Asking, ModelFacts]]]:
    known = facts(tiny_models[NAME], NAME)

    with ExitStack() as open_things:

        def begin(restarts: int) -> tuple[Asking, ModelFacts]:
            def launch(name: str) -> Gang:
                return Gang.launch(
                    Frail, known, tmp_path, name=name, num_cpus=0.5, restarts=restarts
                )

            reporter = Reporter(Console(file=StringIO()))
            crew = Crew([NAME], [(NAME,)], launch, {NAME: known}, reporter)
            open_things.callback(crew.release)
            store = DirectoryStore(tmp_path / "store")
            return Asking(crew, store, 2, restarts, reporter), known

        yield begin


def units(known: ModelFacts, numbers: Sequence[int]) -> list[Unit]:
    return [Unit(known, "squared", (number,), number) for number in numbers]


def test_what_a_dead_host_has_not_answered_is_asked_again(
    asking: Callable[[int], tuple[Asking, ModelFacts]], tmp_path: Path
) -> None:
    asked, known = asking(2)
    assert asked.complete("nothing", []) == []
    assert asked.crew.loads == 0
    for number in (3, 6):
        (tmp_path / f"deadly {number} once").touch()
    answers = asked.complete("squares", units(known, range(8)))
    assert [int(answer["answer"][0]) for answer in answers] == [n**2 for n in range(8)]
    assert asked.crew.loads == 1
    # Two losses, and at each no more than what was in flight is asked again.
    assert len(list(tmp_path.glob("asked *"))) <= 8 + 2 * asked.in_flight

    before = len(list(tmp_path.glob("asked *")))
    assert asked.complete("squares", units(known, [7, 7, 2]))[1]["answer"] == [49]
    assert len(list(tmp_path.glob("asked *"))) == before


def test_a_host_that_dies_too_often_is_lost(
    asking: Callable[[int], tuple[Asking, ModelFacts]], tmp_path: Path
) -> None:
    asked, known = asking(1)
    for again in range(3):
        (tmp_path / f"deadly 3 {again}").touch()
    with pytest.raises(ActorLost):
        asked.complete("squares", units(known, range(4)))
    # What had been answered is kept; with two in flight, that was so of the first before the last
    # was asked.
    assert asked.store.has(units(known, [0])[0].to)
