"""What a behaviour is made of, and how an effect becomes one number per prompt.

Legend: s strengths, p prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Suite:
    """A behaviour read off the next word: openings, and the words that speak for and against it.

    The propensity of a prompt is the log-odds (nats) that the next word is a `positive` one rather
    than a `negative` one, the mean over all pairs of them. `samples` are openings for texts that
    people read. `judges` tell what is written after the prompts: their names in
    `evaluation/judges/`.
    """

    name: str
    prompts: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    samples: tuple[str, ...]
    judges: tuple[str, ...] = ()


def filled_in(openings: Sequence[str], subjects: Sequence[str]) -> tuple[str, ...]:
    """Every opening with every subject, subject by subject.

    Args:
        openings: each has one `{}`, where the subject goes.
        subjects: as they are written at the start of a sentence; elsewhere the first letter is made
            small, so a name that keeps its capital cannot come first.
    """
    return tuple(
        opening.format(subject if opening.startswith("{}") else subject[0].lower() + subject[1:])
        for subject in subjects
        for opening in openings
    )


def slope(log_odds: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Least-squares slope of the propensity against strength, per prompt.

    Args:
        log_odds: [s, p], nats.
        strengths: [s], in the unit that the slope is to be per; not all equal.

    Returns:
        [p], nats per unit of strength.
    """
    centred = strengths - strengths.mean()
    return centred @ log_odds / (centred @ centred)
