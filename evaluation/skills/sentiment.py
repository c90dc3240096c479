"""Whether a line of a film review is for or against the film."""

from evaluation.labelled import movie_lines
from evaluation.skill import Item, Items, Skill

LESSONS = 1200
CLEAR = 1.0  # the least valence, of 4, that a line must have for or against
FORM = "Review: {}\nSentiment:"
WORDS = (" positive", " negative")


def _read() -> Items:
    items = (
        Item(FORM.format(each.text), *_words(each.label > 0))
        for each in movie_lines()
        if abs(each.label) >= CLEAR
    )
    return Items.parted(items, LESSONS)


def _words(positive: bool) -> tuple[str, tuple[str]]:
    right, wrong = WORDS if positive else WORDS[::-1]
    return right, (wrong,)


SENTIMENT = Skill("sentiment", "choice", _read, form=FORM, shown=1)
