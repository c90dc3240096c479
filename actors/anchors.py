"""Anchors: texts whose rows line up across any number of tokenizers.

A row is a place in the text: the last character of a whitespace-separated word at which the model
has a token ending. The first word of a text is dropped (attention sinks), and so are tokens that
stand for no text. What a text is used for is settled by its hash alone, so splits are disjoint.

Legend: n rows.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

WORDS_PER_TEXT = 65536  # row id = text index * WORDS_PER_TEXT + word index

_WORD = re.compile(r"\S+")

# Two uses of one hash read different hexadecimal digits of it, so that they are independent: the
# order (and with it the shard) all of them from the front, the split these.
_SPLIT_DIGITS = slice(32, 48)


class AnchorError(ValueError):
    """Texts that cannot serve as anchors."""


class OverlapError(AnchorError):
    """A text that two splits share."""


@dataclass(frozen=True)
class AnchorBatch:
    """Texts that go through every model together."""

    shard: int
    index: int
    texts: tuple[str, ...]

    @property
    def id(self) -> str:
        """Its place in the run, `shard/index`."""
        return f"{self.shard}/{self.index}"

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what is in it (texts in order), not of its place."""
        content = json.dumps(self.texts, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of the text, blind to how it is spaced: re-wrapped text is the same text."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 of a set of texts, character for character, in whatever order they come."""
    hashes = sorted({hashlib.sha256(text.encode()).hexdigest() for text in texts})
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def assign(text: str, parts: Mapping[str, int]) -> str:
    """Name of the part a text falls in, parts being drawn in proportion to their weights.

    Depends on the text and the parts only: not on the corpus, its order or its length.
    """
    if not parts or any(weight <= 0 for weight in parts.values()):
        raise AnchorError(f"parts of a split need weights of 1 or more, found {dict(parts)}")
    place = int(text_hash(text)[_SPLIT_DIGITS], 16) % sum(parts.values())
    for part, weight in parts.items():
        if place < weight:
            return part
        place -= weight
    raise AssertionError("a place below the sum of the weights lies in a part")


def split(texts: Iterable[str], parts: Mapping[str, int]) -> dict[str, list[str]]:
    """Share texts out over parts by `assign`, in order, keeping the first of repeated texts."""
    shares: dict[str, list[str]] = {part: [] for part in parts}
    for text in _distinct(texts).values():
        shares[assign(text, parts)].append(text)
    return shares


def check_disjoint(splits: Mapping[str, Iterable[str]]) -> None:
    """Raise OverlapError where two splits share a text (by `text_hash`)."""
    owner: dict[str, str] = {}
    for name, texts in splits.items():
        for text in texts:
            other = owner.setdefault(text_hash(text), name)
            if other != name:
                raise OverlapError(f"splits {other} and {name} share the text {_excerpt(text)}")


def batches(texts: Iterable[str], *, shard_texts: int, batch_texts: int) -> list[list[AnchorBatch]]:
    """Shards of batches: the same for the same set of texts, whatever order they come in.

    Shards hold `shard_texts` texts in the order of their hashes, so each is a fair sample. Inside
    one, batches hold `batch_texts` texts of like length, so that little padding is needed.
    Repeated texts are used once.
    """
    if min(shard_texts, batch_texts) < 1:
        raise AnchorError(
            f"shard_texts and batch_texts are 1 or more, found {shard_texts} and {batch_texts}"
        )
    ordered = sorted(_distinct(sorted(texts)).items())
    shards = [ordered[start : start + shard_texts] for start in range(0, len(ordered), shard_texts)]
    return [_shard(number, shard, batch_texts) for number, shard in enumerate(shards)]


def _shard(number: int, hashed: Sequence[tuple[str, str]], batch_texts: int) -> list[AnchorBatch]:
    by_length = sorted(hashed, key=lambda pair: (len(pair[1]), pair[0]))
    pieces = [by_length[at : at + batch_texts] for at in range(0, len(by_length), batch_texts)]
    return [
        AnchorBatch(
            shard=number,
            index=index,
            texts=tuple(text for _, text in piece),
        )
        for index, piece in enumerate(pieces)
    ]


def word_ends(text: str) -> list[int]:
    """Character at which each whitespace-separated word ends (exclusive); first word dropped."""
    return [match.end() for match in _WORD.finditer(text)][1:]


def rows(
    batch: AnchorBatch, offsets: Sequence[Sequence[tuple[int, int]]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows one tokenizer has in a batch, in the order of their ids.

    Args:
        batch: the texts.
        offsets: for each text, the (start, end) characters of each token as the tokenizer gives
            them; (0, 0) for padding and for tokens that stand for no text.

    Returns:
        Row ids int64 [n], which name the same place for every tokenizer; text index int64 [n];
        token index int64 [n], the last token that ends at the word's end.
    """
    assert len(offsets) == len(batch.texts)
    found: list[tuple[int, int, int]] = []
    for index, (text, spans) in enumerate(zip(batch.texts, offsets, strict=True)):
        ends = word_ends(text)
        if len(ends) >= WORDS_PER_TEXT:
            raise AnchorError(
                f"a text of {len(ends) + 1} words, at most {WORDS_PER_TEXT} fit: {_excerpt(text)}"
            )
        token_at = {end: token for token, (start, end) in enumerate(spans) if end > start}
        found.extend(
            (index * WORDS_PER_TEXT + word, index, token_at[end])
            for word, end in enumerate(ends, start=1)
            if end in token_at
        )
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()


def _distinct(texts: Iterable[str]) -> dict[str, str]:
    distinct: dict[str, str] = {}
    for text in texts:
        distinct.setdefault(text_hash(text), text)
    return distinct


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 60 else f"{words[:57]}...")
