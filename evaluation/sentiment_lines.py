"""Sentences that people scored: what judges of sentiment learn from, and are measured on."""

from collections.abc import Iterable
from functools import cache

from evaluation.judge import ErrorRate, Score, error_rate
from evaluation.labelled import (
    Labelled,
    editorial_lines,
    movie_lines,
    parted,
    product_lines,
    sst2,
    tweets,
    without,
)

CLEAR = 0.5  # of 4; a mean valence nearer to zero takes no side


@cache
def kinds() -> dict[str, tuple[list[Labelled], list[Labelled]]]:
    """Lines of each kind that take a side: to learn from, and held out.

    SST-2 was taken from the same film reviews. Lines that share words with it are left out, since
    the vectors whose effect is judged are made from it.
    """
    read = {
        "film reviews": movie_lines(),
        "product reviews": product_lines(),
        "editorials": editorial_lines(),
        "tweets": tweets(),
    }
    sentences = sst2()
    return {kind: parted(_clear(without(rows, sentences))) for kind, rows in read.items()}


def training() -> list[Labelled]:
    """Lines of all kinds to learn from."""
    return [row for lines, _ in kinds().values() for row in lines]


def rates(score: Score) -> tuple[ErrorRate, tuple[ErrorRate, ...]]:
    """How often the side is wrong: on held-out lines of all kinds, then of each, and on SST-2."""
    held_out = {kind: lines for kind, (_, lines) in kinds().items()}
    every = [row for lines in held_out.values() for row in lines]
    parts = [rate(f"{kind}, held out, by people", rows, score) for kind, rows in held_out.items()]
    sentences = rate("SST-2, by people", sst2(), score)
    return rate("held-out lines of four kinds, by people", every, score), (*parts, sentences)


def rate(labels: str, rows: Iterable[Labelled], score: Score) -> ErrorRate:
    """How often the sign of the score is not that of the label."""
    rows = list(rows)
    return error_rate(labels, score([row.text for row in rows]), [row.label for row in rows])


def _clear(rows: Iterable[Labelled]) -> list[Labelled]:
    return [row for row in rows if abs(row.label) >= CLEAR]
