"""Rows line up whatever the tokenizer, and what a text is for depends on the text alone."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.anchors import (
    WORDS_PER_TEXT,
    AnchorBatch,
    AnchorError,
    OverlapError,
    assign,
    batches,
    check_disjoint,
    fingerprint,
    rows,
    split,
    text_hash,
    word_ends,
)

TEXT = st.text(alphabet="ab é🙂\n\t", max_size=40)
TEXTS = st.lists(TEXT, max_size=30)
PARTS = {"fit": 6, "cargo": 1, "dev": 1, "test": 2}


def many(count: int) -> list[str]:
    return [f"text {number} of {count} " + "word " * (number % 7) for number in range(count)]


@given(TEXT)
def test_words_end_where_splitting_ends_them(text: str) -> None:
    words, ends = text.split(), word_ends(text)
    assert len(ends) == max(len(words) - 1, 0)
    for word, end in zip(words[1:], ends, strict=True):
        assert text[end - len(word) : end] == word
        assert end == len(text) or text[end].isspace()


@given(TEXT, st.randoms(use_true_random=False))
def test_a_row_is_the_last_token_that_ends_at_a_words_end(text: str, chance: random.Random) -> None:
    cuts = sorted({0, len(text), *chance.choices(range(len(text) + 1), k=12)})
    spans = [(0, 0), *pairwise(cuts), (0, 0)]  # as with marks before and padding after
    ids, texts, tokens = rows(AnchorBatch(0, 0, ("first text", text)), [[], spans])
    ends = word_ends(text)
    expected = [word for word, end in enumerate(ends, start=1) if end in cuts]
    assert list(ids) == [WORDS_PER_TEXT + word for word in expected]
    assert set(texts) <= {1}
    assert [spans[token][1] for token in tokens] == [ends[word - 1] for word in expected]


def test_rows_of_two_tokenizers_name_the_same_places() -> None:
    batch = AnchorBatch(0, 0, ("a bad ending", "one two"))
    whole = [[(0, 1), (1, 5), (5, 12)], [(0, 3), (3, 7), (0, 0)]]
    pieces = [[(0, 0), (0, 3), (3, 5), (5, 9), (9, 12)], [(0, 0), (0, 1), (1, 5), (5, 8)]]
    ids, texts, tokens = rows(batch, whole)
    other_ids, _, other_tokens = rows(batch, pieces)
    assert list(ids) == [1, 2, WORDS_PER_TEXT + 1]
    assert list(texts) == [0, 0, 1]
    assert list(tokens) == [1, 2, 1]
    assert list(other_ids) == [1, 2]  # of the second text, no token ends at its last word's end
    assert list(other_tokens) == [2, 4]
    assert {array.dtype for array in (ids, texts, tokens)} == {np.dtype(np.int64)}


def test_of_tokens_that_share_a_character_the_last_one_counts() -> None:
    batch = AnchorBatch(0, 0, ("a 🙂",))
    _, _, tokens = rows(batch, [[(0, 1), (1, 3), (2, 3), (2, 3), (0, 0)]])
    assert list(tokens) == [3]


def test_a_batch_without_rows_has_empty_arrays() -> None:
    for array in rows(AnchorBatch(0, 0, ("one",)), [[(0, 3)]]):
        assert array.shape == (0,)


def test_too_many_words_are_refused() -> None:
    text = "a " * (WORDS_PER_TEXT + 1)
    with pytest.raises(AnchorError, match="a text of 65537 words, at most 65536 fit: 'a a"):
        rows(AnchorBatch(0, 0, (text,)), [[]])


@given(TEXTS)
def test_batches_depend_on_the_set_of_texts_only(texts: list[str]) -> None:
    size = {"shard_texts": 7, "batch_texts": 3}
    shards = batches(texts, **size)
    assert shards == batches(random.Random(1).sample(texts, len(texts)) + texts, **size)
    held = [text for shard in shards for batch in shard for text in batch.texts]
    assert sorted(map(text_hash, held)) == sorted(set(map(text_hash, texts)))


def test_shards_and_batches_are_full_numbered_and_sorted_by_length() -> None:
    shards = batches(many(50), shard_texts=20, batch_texts=8)
    assert [[len(batch.texts) for batch in shard] for shard in shards] == [
        [8, 8, 4],
        [8, 8, 4],
        [8, 2],
    ]
    for number, shard in enumerate(shards):
        assert [batch.id for batch in shard] == [f"{number}/{i}" for i in range(len(shard))]
        lengths = [len(text) for batch in shard for text in batch.texts]
        assert lengths == sorted(lengths)


def test_a_batch_is_known_by_its_content_not_its_place() -> None:
    batch = AnchorBatch(0, 0, ("one two", "three"))
    assert batch.hash == AnchorBatch(3, 2, ("one two", "three")).hash
    assert batch.hash != AnchorBatch(0, 0, ("one  two", "three")).hash
    assert batch.hash != AnchorBatch(0, 0, ("one", "two three")).hash


@pytest.mark.parametrize("wrong", [{"shard_texts": 0}, {"batch_texts": 0}])
def test_sizes_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(AnchorError, match="are 1 or more, found"):
        batches([], **({"shard_texts": 1, "batch_texts": 1} | wrong))


def test_parts_are_disjoint_cover_all_and_follow_their_weights() -> None:
    texts = many(3000)
    shares = split([*texts, *texts[:100], "  " + texts[0].replace(" ", "\n")], PARTS)
    check_disjoint(shares)
    assert sorted(text for share in shares.values() for text in share) == sorted(texts)
    for part, weight in PARTS.items():
        assert len(shares[part]) == pytest.approx(3000 * weight / 10, rel=0.15)


@given(TEXTS, TEXT)
def test_the_part_of_a_text_does_not_depend_on_the_others(texts: list[str], text: str) -> None:
    part = assign(text, PARTS)
    shares = split([*texts, text], PARTS)
    assert text_hash(text) in {text_hash(member) for member in shares[part]}


@pytest.mark.parametrize("parts", [{}, {"a": 0}, {"a": 2, "b": -1}])
def test_weights_of_parts_have_to_be_positive(parts: dict[str, int]) -> None:
    with pytest.raises(AnchorError, match="weights of 1 or more"):
        assign("text", parts)


def test_an_overlap_names_both_splits_and_the_text() -> None:
    check_disjoint({"fit": ["one", "one"], "test": ["two"]})
    with pytest.raises(OverlapError, match="splits fit and test share the text 'one two'"):
        check_disjoint({"fit": ["zero", "one two"], "dev": [], "test": ["one\n two "]})


def test_the_fingerprint_is_of_the_set_of_texts() -> None:
    texts = many(20)
    assert fingerprint(texts) == fingerprint([*texts[::-1], texts[3]])
    assert fingerprint(texts) != fingerprint(texts[1:])
    assert fingerprint(["a b"]) != fingerprint(["a  b"])
