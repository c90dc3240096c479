"""A tweet said again: how much of its text is there."""

from evaluation.labelled import tweets
from evaluation.skill import Item, Items, Skill

LESSONS = 1200
FORM = "Text: {}\nThe same text:"


def _read() -> Items:
    texts = (" ".join(each.text.split()) for each in tweets())
    return Items.parted((Item(FORM.format(text), f" {text}") for text in texts), LESSONS)


RECALL = Skill("recall", "bits", _read, form=FORM)
