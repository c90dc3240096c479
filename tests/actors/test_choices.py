"""Questions with lettered choices, as they are written here and there."""

import pytest

from actors.choices import answered
from actors.corpora import CorpusError, CorpusSpec, read_texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Tea or coffee?\n\nChoices:\n(A) Tea\n(B) Coffee (black)\n (B)",
            "Tea or coffee? Coffee (black)",
        ),
        (
            "Tea?\n\nChoices:\n (A) Yes,\n with milk\n (B) No\n\nAnswer:\n (A)",
            "Tea? Yes,\n with milk",
        ),
        (
            "He asked (A) me. What now?\n (A) Stay\n (B) Go\n\nAnswer: (B)",
            "He asked (A) me. What now? Go",
        ),
        ("Which?\nChoices:\n(A) One\n(B) Two\n(C) Three\n(C)", "Which? Three"),
    ],
)
def test_the_chosen_answer_is_read_in_words(text: str, said: str) -> None:
    assert answered(text) == said


@pytest.mark.parametrize(
    "text",
    ["Tea?", "Tea? (A)", "Tea?\n(A) Yes\n(B) No", "Tea?\n(A) Yes\n(B) No\n(C)", "Tea?\n(A)\n(A)"],
)
def test_what_is_no_such_question_is_told(text: str) -> None:
    assert answered(text) is None


def test_a_record_that_is_none_is_named(tmp_path) -> None:
    file = tmp_path / "asked.json"
    file.write_text('[{"a": "Tea?\\n(A) Yes\\n(B) No\\n(A)"}, {"a": "Tea?"}]')
    texts = read_texts(CorpusSpec(file=file, field="a", answered=True))
    assert next(texts) == "Tea? Yes"
    with pytest.raises(CorpusError, match=r"record 2: a is no question with lettered choices"):
        next(texts)
