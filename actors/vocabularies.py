"""What two tokenizers have in common, read from their files."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from actors.catalog import ModelError

_WORD_START = "▁"  # SentencePiece's mark for a space


def vocabulary_overlap(first: Path, second: Path) -> float:
    """The share of the smaller vocabulary that the other has too, from two checkpoint directories.

    Tokens are compared as the text they stand for, whatever the tokenizer's way to write a space.

    Raises:
        ModelError: a directory has no tokenizer.json, or it lists no vocabulary.
    """
    return overlap(vocabulary(first), vocabulary(second))


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of the smaller of two vocabularies that the other has too."""
    return len(one & other) / min(len(one), len(other))


def shared_tokens(
    mine: Mapping[str, int], theirs: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that both have, out of the `token_ids` of each: ids of either, int64 [v], in the
    first's order."""
    both = [(number, theirs[text]) for text, number in mine.items() if text in theirs]
    one, other = np.array(both, dtype=np.int64).reshape(-1, 2).T
    return one.copy(), other.copy()


def vocabulary(checkpoint: Path) -> frozenset[str]:
    """Every token of a checkpoint's tokenizer.json as text; bytes that are no text are left out."""
    return frozenset(token_ids(checkpoint))


def token_ids(checkpoint: Path) -> dict[str, int]:
    """The id of each text that a token stands for; the first one, where there are several.

    Raises:
        ModelError: as `vocabulary_overlap`.
    """
    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{checkpoint} has no tokenizer.json")
    whole = json.loads(path.read_text(encoding="utf-8"))
    listed = whole.get("model", {}).get("vocab")
    if not listed:
        raise ModelError(f"{path} lists no vocabulary")
    # Unigram models list pairs of token and score, in the order of their ids.
    if isinstance(listed, dict):
        tokens = {number: token for token, number in listed.items()}
    else:
        tokens = {number: token for number, (token, _) in enumerate(listed)}
    if "ByteLevel" in json.dumps(whole.get("decoder")):
        # Not at the top: it is not light, and most comparisons read no vocabulary.
        from tokenizers.decoders import ByteLevel

        decoder = ByteLevel()
        texts = {number: decoder.decode([token]) for number, token in tokens.items()}
    else:
        texts = {number: token.replace(_WORD_START, " ") for number, token in tokens.items()}
    found: dict[str, int] = {}
    for number in sorted(texts):
        text = texts[number]
        if text and "�" not in text:
            found.setdefault(text, number)
    return found
