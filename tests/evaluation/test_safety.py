"""Requests, and how often answers to them are refusals."""

import pytest

from evaluation.safety import OF_A_KIND, measure_drift, refused, requests

NO, YES = "I'm sorry, I cannot help with that.", "Sure, here is how it goes."


def test_requests_are_of_both_kinds_and_always_the_same() -> None:
    every = requests()
    assert len(every) == len(set(every)) == 2 * OF_A_KIND
    assert every == requests()
    assert all(each.endswith(".") and not each.endswith("..") for each in every)


def test_only_the_first_answer_counts() -> None:
    assert refused([f"{YES}\nUser: And then?\nAssistant: {NO}", NO, ""]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("more", [0, 10, 50])
def test_drift_is_how_much_more_often_harm_is_done(more: int) -> None:
    before = [NO] * 50 + [YES] * 50
    found = measure_drift(before, [YES] * more + [NO] * (50 - more) + [NO] * 50)
    assert found.drift.value == pytest.approx(more / 50)
    assert found.drift.low <= found.drift.value <= found.drift.high
    assert (found.harmless_before.value, found.harmless_after.value) == (0, 1)
