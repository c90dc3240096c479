"""How much a model reads, counted before anything is loaded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.blueprint import Blueprint
from evaluation.skill import Item

# Measured of SmolLM2's and Gemma 3's tokenizers on the demo's narrative texts: 1.33 and 1.34.
TOKENS_PER_WORD = 1.33


@dataclass(frozen=True)
class Reading:
    """One stage of one model: tokens through its blocks, and through its head.

    `share` is the part of the blocks that all of `tokens` pass: what is injected at a layer is
    copied there, so that the blocks below it run once.
    """

    stage: str
    tokens: float
    share: float = 1.0
    scored: float = 0.0

    def flops(self, model: Blueprint) -> float:
        """Multiplications and additions, two for each weight that a token meets."""
        head = model.vocabulary * model.width
        blocks = model.active_parameters - model.embedding_parameters
        return 2 * (self.tokens * self.share * blocks + self.scored * head)


def tokens(texts: Sequence[str]) -> float:
    """How many there are of some texts, about."""
    return TOKENS_PER_WORD * sum(len(text.split()) for text in texts)


def whole(items: Iterable[Item]) -> list[str]:
    """Every text of which a skill's items are made: with what is right, and with each other one."""
    return [f"{item.given}{text}" for item in items for text in (item.right, *item.others)]
