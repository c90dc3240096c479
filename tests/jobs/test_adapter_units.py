"""What a source is asked of: its own words in a form, and as many of every answer."""

from actors.examples import Example
from jobs.adapter_units import FILLING, HELD_OUT, WORDS, Showing, evenly, filled, openings

FORM = "Review: {}\nSentiment:"
TEXT = "one two three four five six seven eight nine ten eleven twelve"


def test_a_form_has_the_first_words_of_what_was_written_in_it() -> None:
    long = " ".join(["word"] * 20)
    written = [
        f"Review: {long}",
        "Review: Fine film, that.\nSentiment: x",
        "Review: No.",
        "Review:",
    ]
    texts = [TEXT] * len(written)
    showing = Showing(FORM, 1, judgement=True)
    asked = filled(showing, [Example(each, len("Review:")) for each in written], texts)
    own = " ".join(TEXT.split()[:FILLING])
    words = [" ".join(["word"] * FILLING), "Fine film, that.", own, own]
    assert asked == [FORM.format(each) for each in words]


def test_a_form_that_begins_with_words_is_filled_from_the_first_on() -> None:
    showing = Showing("{}\nSummary:", 32, judgement=False)
    asked = filled(showing, [Example("one of its own words", 3)], [TEXT])
    assert asked == ["one of its own words\nSummary:"]


def test_what_is_no_judgement_is_asked_of_more_words() -> None:
    long = " ".join(["word"] * 30)
    (asked,) = filled(Showing(FORM, 32, judgement=False), [Example(f"Review: {long}")], [TEXT])
    assert asked == FORM.format(" ".join(["word"] * WORDS))


def test_without_a_form_a_text_opens_with_its_first_word() -> None:
    assert openings("", [TEXT]) == ["one"]
    assert openings(FORM, ["a short one"]) == [FORM.format("a short one")]


def answered(answers: list[str]) -> list[Example]:
    asked = [f"Review: {number}\nSentiment:" for number in range(len(answers))]
    return [Example(f"{text} {each}", len(text)) for text, each in zip(asked, answers, strict=True)]


def test_every_answer_that_is_not_rare_is_given_as_often() -> None:
    answers = ["positive"] * 80 + ["negative"] * 40 + ["un"] * 3
    texts = answered(answers)
    even = evenly(texts)
    said = [each.text.split()[-1] for each in even]
    assert said == ["positive", "negative"] * 40
    assert set(even) <= set(texts)


def test_what_would_leave_too_few_is_left_as_it_is() -> None:
    answers = ["positive"] * HELD_OUT + ["negative"] * (HELD_OUT // 2)
    texts = answered(answers)
    assert evenly(texts) == texts
