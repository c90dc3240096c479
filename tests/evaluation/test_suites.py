"""Every suite asks for one of two kinds of words, and gives none of them away."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.suite import Suite, filled_in
from evaluation.suites import SUITES

PROMPTS = 72
SAMPLES = 4
WORDS = range(3, 21)  # sentiment has the shortest: "The soup was"


def openings(suite: Suite) -> tuple[str, ...]:
    return (*suite.prompts, *suite.samples)


def counted(suite: Suite) -> list[str]:
    return [word.casefold() for word in (*suite.positive, *suite.negative)]


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES.keys())
class TestEverySuite:
    def test_the_sides_are_of_one_size(self, suite: Suite) -> None:
        assert len(suite.positive) == len(suite.negative) == 24

    def test_no_word_is_counted_twice_or_on_both_sides(self, suite: Suite) -> None:
        assert len(set(counted(suite))) == len(counted(suite))

    def test_what_is_counted_is_single_words_in_small_letters(self, suite: Suite) -> None:
        assert all(re.fullmatch("[a-z]+", word) for word in (*suite.positive, *suite.negative))

    def test_there_are_enough_openings_and_no_two_alike(self, suite: Suite) -> None:
        assert len(suite.prompts) == PROMPTS
        assert len(suite.samples) == SAMPLES
        assert len({each.casefold() for each in openings(suite)}) == PROMPTS + SAMPLES

    def test_openings_are_plain_sentences_that_break_off_before_a_word(self, suite: Suite) -> None:
        for opening in openings(suite):
            assert opening.isascii()
            assert not set("{}") & set(opening)
            assert opening == " ".join(opening.split())
            assert opening[0].isupper()
            assert opening[-1].isalpha()

    def test_prompts_are_of_a_length_to_be_read_at_once(self, suite: Suite) -> None:
        assert {len(prompt.split()) for prompt in suite.prompts} <= set(WORDS)

    def test_no_opening_says_a_word_that_is_counted(self, suite: Suite) -> None:
        for opening in openings(suite):
            assert not set(counted(suite)) & set(re.findall(r"\w+", opening.casefold()))


subjects = st.lists(st.from_regex(r"[A-Z][a-z]{2,5}( [a-z]{2,5})?", fullmatch=True), max_size=5)
frames = st.lists(st.sampled_from(("{} was", "I said that {} is", "Of {}, he")), max_size=3)


@given(frames=frames, subjects=subjects)
def test_every_opening_is_filled_in_with_every_subject(
    frames: list[str], subjects: list[str]
) -> None:
    filled = filled_in(frames, subjects)
    assert len(filled) == len(frames) * len(subjects)
    for number, prompt in enumerate(filled):
        subject, frame = subjects[number // len(frames)], frames[number % len(frames)]
        before, after = frame.split("{}")
        inner = prompt.removeprefix(before).removesuffix(after)
        assert before + inner + after == prompt
        assert inner.casefold() == subject.casefold()
        assert inner[0].isupper() == (not before)
