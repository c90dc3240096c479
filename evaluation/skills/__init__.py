"""Skills that adapters teach: one file each, one line here."""

from evaluation.skill import Skill
from evaluation.skills.json_answers import JSON_ANSWERS
from evaluation.skills.passage_answers import PASSAGE_ANSWERS
from evaluation.skills.python import PYTHON
from evaluation.skills.recall import RECALL
from evaluation.skills.rust import RUST
from evaluation.skills.sentiment import SENTIMENT
from evaluation.skills.social_media import SOCIAL_MEDIA

SKILLS: dict[str, Skill] = {
    "json_answers": JSON_ANSWERS,
    "passage_answers": PASSAGE_ANSWERS,
    "python": PYTHON,
    "recall": RECALL,
    "rust": RUST,
    "sentiment": SENTIMENT,
    "social_media": SOCIAL_MEDIA,
}

__all__ = ["SKILLS"]
