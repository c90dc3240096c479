"""What two tokenizers share is counted as text, however each of them writes a space."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from actors.catalog import ModelError
from actors.fleet import find, spec
from actors.vocabularies import shared_tokens, token_ids, vocabulary, vocabulary_overlap
from actors.weights import default_cache, prepare

WORDS = ("the", "ferry", "crosses", "strait", "a", "café")
TEXTS = [f"{first} {second} {third}" for first in WORDS for second in WORDS for third in WORDS]


def byte_level(directory: Path) -> Path:
    """A tokenizer that spells bytes, and a space as Ġ."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    made.save(str(directory / "tokenizer.json"))
    return directory


def metaspace(directory: Path) -> Path:
    """A tokenizer made as SentencePiece makes them, with a space as ▁."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=80, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    made.save(str(directory / "tokenizer.json"))
    return directory


def unigram(directory: Path) -> Path:
    """The same with scores, and a list in place of a mapping."""
    pieces = [("<unk>", 0.0), *((f"▁{word}", -2.0) for word in WORDS), ("r", -4.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.decoder = decoders.Metaspace()
    made.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories with a tokenizer of each kind, of the same words."""
    new = tmp_path_factory.mktemp
    return {
        "byte-level": byte_level(new("byte-level")),
        "metaspace": metaspace(new("metaspace")),
        "unigram": unigram(new("unigram")),
    }


@pytest.mark.parametrize("kind", ["byte-level", "metaspace", "unigram"])
def test_every_kind_of_tokenizer_is_read_as_text(made: dict[str, Path], kind: str) -> None:
    found = vocabulary(made[kind])
    assert {" the", " ferry", " café"} <= found
    assert not [
        text for text in found if "▁" in text or "Ġ" in text or "\N{REPLACEMENT CHARACTER}" in text
    ]


def test_the_same_words_meet_however_a_space_is_written(made: dict[str, Path]) -> None:
    first, second = vocabulary(made["byte-level"]), vocabulary(made["metaspace"])
    assert {f" {word}" for word in WORDS} <= first & second
    assert vocabulary_overlap(made["byte-level"], made["metaspace"]) > 0.8


def test_an_overlap_is_a_share_that_does_not_depend_on_the_order(made: dict[str, Path]) -> None:
    for first in made.values():
        assert vocabulary_overlap(first, first) == 1
        for second in made.values():
            overlap = vocabulary_overlap(first, second)
            assert 0 <= overlap <= 1
            assert overlap == vocabulary_overlap(second, first)
            shared = vocabulary(first) & vocabulary(second)
            assert overlap == len(shared) / min(len(vocabulary(first)), len(vocabulary(second)))


def test_shared_tokens_stand_for_the_same_text(made: dict[str, Path]) -> None:
    for first in made.values():
        for second in made.values():
            one, other = shared_tokens(token_ids(first), token_ids(second))
            assert len(one) == len(vocabulary(first) & vocabulary(second))
            readers = [Tokenizer.from_file(str(of / "tokenizer.json")) for of in (first, second)]
            for pair in zip(one.tolist(), other.tolist(), strict=True):
                said = {
                    reader.decode([number]).strip()
                    for reader, number in zip(readers, pair, strict=True)
                }
                assert len(said) == 1
            back = shared_tokens(token_ids(second), token_ids(first))
            assert set(zip(one, other, strict=True)) == set(zip(*back[::-1], strict=True))


def test_a_part_of_a_vocabulary_overlaps_wholly(made: dict[str, Path], tmp_path: Path) -> None:
    whole = json.loads((made["metaspace"] / "tokenizer.json").read_text())
    listed = whole["model"]["vocab"]
    whole["model"] |= {"vocab": dict(list(listed.items())[: len(listed) // 2])}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    assert vocabulary_overlap(tmp_path, made["metaspace"]) == 1


def test_a_checkpoint_without_a_vocabulary_is_one_line(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(ModelError, match=rf"^{tmp_path} has no tokenizer\.json$"):
        vocabulary_overlap(tmp_path, checkpoint("llama"))
    for content in ({}, {"model": {"vocab": {}}}):
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=rf"^{tmp_path}/tokenizer\.json lists no vocabulary$"):
            vocabulary(tmp_path)


@pytest.mark.real
def test_the_real_models_have_most_of_the_smaller_vocabulary_in_common() -> None:
    names = ("smollm2-135m-instruct", "gemma-3-270m")
    here = [prepare(spec(find(name)), default_cache()) for name in names]
    assert vocabulary_overlap(*here) > 0.9
