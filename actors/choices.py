"""Questions with lettered choices, as data sets of contrasting answers have them.

Such a text ends with the letter of the chosen answer. A small model knows little of letters, so the
text is read as the question with the answer in words.
"""

import re

_HEADING = re.compile(r"\n\s*Choices:\s*\n")
_CHOICE = re.compile(r"^\s*\(([A-Z])\)", re.MULTILINE)
_CHOSEN = re.compile(r"(?:\n\s*Answer:)?\s*\(([A-Z])\)\s*$")


def answered(text: str) -> str | None:
    """The question and the chosen answer, in words; None where the text is no such question."""
    chosen = _CHOSEN.search(text)
    if chosen is None:
        return None
    asked = text[: chosen.start()]
    if heading := _HEADING.search(asked):
        question, listed = asked[: heading.start()], asked[heading.end() :]
    elif first := _CHOICE.search(asked):
        question, listed = asked[: first.start()], asked[first.start() :]
    else:
        return None
    _, *parts = _CHOICE.split(listed)
    choices = dict(zip(parts[::2], parts[1::2], strict=True))
    answer = choices.get(chosen[1], "").strip()
    return f"{question.strip()} {answer}" if answer else None
