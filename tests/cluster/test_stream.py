import itertools
import sys
import time
from pathlib import Path

import pytest
from ray import cloudpickle

from cluster.gang import Gang, Ref
from cluster.pace import paced
from cluster.stream import stream

pytestmark = pytest.mark.ray
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Echo:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def echo(self, x: int, seconds: float = 0.0) -> int:
        (self.directory / str(x)).touch()
        time.sleep(seconds)
        if x == 13:
            raise ValueError("13 is unlucky")
        return 10 * x

    def count(self, to: int) -> int:
        for _ in paced(range(to)):
            time.sleep(0.5)
        return to


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("echo")


@pytest.fixture(scope="module")
def gangs(local_ray, directory):
    gangs = [Gang.launch(Echo, directory, name=f"echo {i}") for i in range(2)]
    yield gangs
    for gang in gangs:
        gang.stop()


@pytest.mark.parametrize("in_flight", [1, 3, 50])
def test_answers_come_in_order_and_few_are_in_flight(gangs, in_flight):
    submitted = 0

    def submit(x: int) -> Ref:
        nonlocal submitted
        submitted += 1
        # The first process is the slower one, so answers are ready out of order.
        return gangs[x % 2].submit("echo", x, 0.02 if x % 2 == 0 else 0.0)

    for yielded, (item, answer) in enumerate(stream(iter(range(20, 40)), submit, in_flight)):
        assert (item, answer) == (20 + yielded, 10 * (20 + yielded))
        assert submitted - yielded <= in_flight
    assert submitted == 20


def test_items_may_be_endless(gangs):
    answers = stream(itertools.count(100), lambda x: gangs[0].submit("echo", x), 4)
    assert [answer for _, answer in itertools.islice(answers, 5)] == [1000, 1010, 1020, 1030, 1040]


def test_no_items_no_answers(gangs):
    assert list(stream([], lambda x: gangs[0].submit("echo", x), 4)) == []


def test_a_failed_call_ends_the_stream(gangs, directory):
    answers = stream([12, 13, *range(200, 220)], lambda x: gangs[0].submit("echo", x), 3)
    assert next(answers) == (12, 120)
    with pytest.raises(ValueError, match=r"^13 is unlucky$"):
        next(answers)
    assert list(answers) == []
    assert gangs[0].call("echo", 0) == 0
    assert {path.name for path in directory.glob("2??")} == {"200", "201"}


def test_in_flight_is_at_least_one(gangs):
    with pytest.raises(ValueError, match="in_flight is 0, and must be at least 1"):
        next(stream([1], lambda x: gangs[0].submit("echo", x), 0))


def test_how_far_calls_have_come_is_known_while_they_are_waited_for(gangs):
    gang, seen = gangs[1], []
    before = gang.pace()
    counted = stream([8, 2], lambda x: gang.submit("count", x), 2, lambda: seen.append(gang.pace()))
    assert [answer for _, answer in counted] == [8, 2]
    assert seen == sorted(seen)
    assert any(before < pace < before + 1 for pace in seen)
    assert gang.pace() == before + 2


def test_nobody_says_how_far_a_stopped_process_is(local_ray, directory):
    gang = Gang.launch(Echo, directory, name="stopped echo")
    assert gang.call("echo", 1) == 10
    gang.stop()
    assert gang.pace() is None
