"""The language of tweets."""

from evaluation.labelled import tweets
from evaluation.skill import Item, Items, Skill

LESSONS = 1600


def _read() -> Items:
    return Items.parted((Item("", each.text) for each in tweets()), LESSONS)


SOCIAL_MEDIA = Skill("social_media", "bits", _read)
