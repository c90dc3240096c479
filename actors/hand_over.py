"""What a text's cache is worth to a target that another model has read it for.

The text is cut in two. The source reads the first part; the target goes on from what a map makes of
the source's cells, and is judged by the nats of the second part.

Shapes: t tokens of the whole text, p of them cached, d width of a site, e width of what the target
knows of a token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actors.cached_text import Read, own_tokens
from actors.caching import CacheError, continuation_nll, know, read
from actors.cargo.kv_cache import carry, with_own
from actors.engine import Engine
from alignment.cache_map import CacheMap

# What is cached before the second part, beside what maps carry.
BASE = "base"  # the target's own first tokens alone
NATIVE = "native"
ANOTHER, MEAN = "another text", "mean cell"
Cells = Mapping[str, np.ndarray]  # float32 [p, d] by site


@dataclass(frozen=True)
class Passage:
    """A text, and how many of its characters are cached; the rest is judged."""

    text: str
    first: int

    @classmethod
    def cut(cls, text: str, characters: int) -> "Passage":
        """At the end of the word at which the first part is long enough.

        Raises CacheError where no word begins after that.
        """
        at = text.find(" ", characters)
        if at < 0 or not text[at:].strip():
            raise CacheError(f"a text of {len(text)} characters leaves none after {characters}")
        return cls(text, at)

    @property
    def cached(self) -> str:
        """The first part."""
        return self.text[: self.first]

    def last(self, share: float) -> "Passage":
        """The same text begun later, at a word: so large a share of what is cached is left."""
        start = self.text.rfind(" ", 0, self.first - round(share * self.first)) + 1
        return Passage(self.text[start:], self.first - start)

    def tokens_in(self, spans: np.ndarray) -> int:
        """How many tokens of the whole text, by their spans [t, 2], are cached."""
        return int((spans[:, 1] <= self.first).sum())


@dataclass(frozen=True, eq=False)
class HandOver:
    """A text in the target, beside what the source has read of it.

    `spans` [p, 2] and `known` [p, e] are of the cached tokens, `fed` the ids of the others, `own`
    and `native` are cells by site: of the first tokens, which are the target's own, and of all that
    are cached.
    """

    source: Read
    ids: np.ndarray
    spans: np.ndarray
    known: np.ndarray
    own: dict[str, np.ndarray]
    native: dict[str, np.ndarray]

    @property
    def cached(self) -> int:
        return len(self.spans)

    @property
    def fed(self) -> np.ndarray:
        return self.ids[self.cached :]

    def carried(self, by: CacheMap, of: Read | None = None) -> dict[str, np.ndarray]:
        """The target's cells by site [p, d], from those of the source, or of another text."""
        return with_own(carry(of or self.source, self.spans, self.known, by), self.own)

    def mean(self, by: CacheMap) -> dict[str, np.ndarray]:
        """The same, if every token had the mean of what the map was fitted to."""
        means = {name: each.mean[None] for name, each in by.reductions.items()}
        cells = {
            site: np.repeat(of.numpy(), self.cached, 0) for site, of in by.transform(means).items()
        }
        return with_own(cells, self.own)


def meet(engine: Engine, fingerprint: str, passage: Passage, source: Read) -> HandOver:
    """See `meet_all`, of one text."""
    (met,) = meet_all(engine, fingerprint, [passage], [source])
    return met


def meet_all(
    engine: Engine, fingerprint: str, passages: Sequence[Passage], sources: Sequence[Read]
) -> list[HandOver]:
    """Read whole texts of like length in the target, as the source has read their first parts.

    Raises:
        CacheError: a text is longer than the target's context, or nothing comes after what is
            cached.
    """
    found = read(engine, fingerprint, [passage.text for passage in passages])
    return [_met(engine, *each) for each in zip(passages, found, sources, strict=True)]


def _met(engine: Engine, passage: Passage, whole: Read, source: Read) -> HandOver:
    cached = passage.tokens_in(whole.spans)
    own = own_tokens(source.spans, whole.spans[:cached])
    return HandOver(
        source,
        ids=whole.ids,
        spans=whole.spans[:cached],
        known=know(engine, whole.ids[:cached], 0).states,
        own=whole.first(own),
        native=whole.first(cached),
    )


def nats(
    engine: Engine,
    met: HandOver,
    maps: Mapping[str, CacheMap],
    chief: str,
    other: Read | None,
    late: Sequence[float],
    changed: Callable[[HandOver, Cells], Mapping[str, Cells]] | None = None,
) -> dict[str, float]:
    """Nats per token of the second part, by what is cached before it.

    Beside base, native and what each map carries: the controls of the map that is `chief`, the
    cells of another text, if there is one, and then its mean cell; for each share of `late` what it
    carries with so many of the last cached tokens read again, by `again`; and what is made of what
    it carries, if it is `changed`.
    """
    by = maps[chief]
    carried = {name: met.carried(each) for name, each in maps.items()}
    variants = {
        NATIVE: met.native,
        **carried,
        **({} if other is None else {ANOTHER: met.carried(by, other), MEAN: met.mean(by)}),
        **(changed(met, carried[chief]) if changed else {}),
    }
    return {
        **after(engine, met, variants),
        **{again(share): after_late(engine, met, carried[chief], share) for share in late},
    }


def after(engine: Engine, met: HandOver, variants: Mapping[str, Cells]) -> dict[str, float]:
    """Nats of the second part after cells of all that is cached, by name, and base."""
    found = continuation_nll(engine, met.fed, list(variants.values()))
    (base,) = continuation_nll(engine, met.fed, [met.own])
    return {BASE: float(base), **dict(zip(variants, found.tolist(), strict=True))}


def fused(native: Cells, carried: Cells, share: float) -> dict[str, np.ndarray]:
    """The target's own cells, moved a share of the way to the carried ones.

    Another mode than handing over: the target has read the text as well.
    """
    return {site: of + share * (carried[site] - of) for site, of in native.items()}


def again(share: float) -> str:
    """What is called so where a share of the cached tokens is read again."""
    return f"{share:.0%} read again"


def after_late(engine: Engine, met: HandOver, cells: Cells, share: float) -> float:
    """Nats of the second part after cells of which so many of the last tokens are read again."""
    tail = max(len(met.own[next(iter(met.own))]), met.cached - round(share * met.cached))
    kept = {site: of[:tail] for site, of in cells.items()}
    (found,) = continuation_nll(engine, met.ids[tail:], [kept], known=met.cached - tail + 1)
    return float(found)
