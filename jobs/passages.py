"""The texts that caches are read of, each used for one thing only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from actors.anchors import AnchorError, check_disjoint, text_hash
from actors.corpora import read_texts
from actors.hand_over import Passage
from jobs.sections import Caches, Content

BATCH_TEXTS = 4  # that are read together
SAMPLED = 12  # batches that components are found on, where there are twice as many
ALIKE = 100  # characters at the start, by which texts of a corpus count as one


@dataclass(frozen=True)
class Passages:
    """What maps are fitted to, and what λ is chosen on, by hash; what is judged, by content."""

    fitted: tuple[str, ...]
    held: tuple[str, ...]
    test: dict[str, tuple[Passage, ...]]


def sampled(texts: int) -> int:
    """On how many batches of so many texts components are found."""
    return min(SAMPLED, math.ceil(texts / (2 * BATCH_TEXTS)))


def passages(section: Caches, seed: int) -> Passages:
    """Read and share out the texts of every kind of content.

    Raises:
        CorpusError: a corpus cannot be read.
        AnchorError: there are fewer texts than are asked for, or two uses share one.
    """
    cut = (section.test, section.test + section.held)
    wanted = cut[1] + section.texts
    fitted, held, test = [], [], {}
    for name, content in section.content.items():
        found = long_texts(section, content, seed)
        if len(found) < wanted:
            raise AnchorError(
                f"kv_cache.content.{name}: {wanted} texts of {section.cached + section.judged} "
                f"characters are asked for (test, held and texts together), there are {len(found)}"
            )
        test[name] = tuple(Passage.cut(text, section.cached) for text in found[: cut[0]])
        held += found[slice(*cut)]
        fitted += found[cut[1] : wanted]
    uses = {"fitted": fitted, "held": held}
    check_disjoint(uses | {name: [each.text for each in of] for name, of in test.items()})
    return Passages(by_hash(fitted, seed), by_hash(held, seed), test)


def long_texts(section: Caches, content: Content, seed: int) -> list[str]:
    """Each long enough to be judged, and cut at the same length, by hash.

    Texts of a corpus that begin alike, as questions on one passage do, count as one.
    """
    found = by_hash({text[:ALIKE]: text for text in read_texts(content)}.values(), seed)
    joined = content.joined
    whole = ("\n\n".join(found[at : at + joined]) for at in range(0, len(found), joined))
    length = section.cached + section.judged
    return [text[:length] for text in whole if len(text) >= length]


def by_hash(texts: Iterable[str], seed: int) -> tuple[str, ...]:
    """Texts in the order of their hashes: another one for each seed."""
    salt = f"{seed} " if seed else ""
    return tuple(sorted(texts, key=lambda text: text_hash(salt + text)))
