"""Texts to ids, checked against the tokenizer itself."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, trainers
from transformers import PreTrainedTokenizerFast

from actors.encoding import TextError, encode, first_tokens, told_apart, word_tokens
from actors.engine import Engine


def test_every_text_is_encoded_as_if_it_were_alone(
    engine: Engine, sentences: tuple[str, ...]
) -> None:
    encoded = encode(engine, sentences)
    for row, text in enumerate(sentences):
        length = encoded.lengths[row]
        assert encoded.ids[row, :length].tolist() == engine.tokenizer(text)["input_ids"]
        assert len(encoded.spans[row]) == length
        assert encoded.spans[row][-1][1] == len(text)


def test_text_beyond_the_context_is_cut_off(engine: Engine) -> None:
    encoded = encode(engine, ["a lamp " * 500])
    assert encoded.ids.shape == (1, engine.context)


def test_a_text_without_tokens_is_refused(gpt_like: Engine) -> None:
    with pytest.raises(TextError, match="text 1 of 2 is empty"):
        encode(gpt_like, ["A lamp.", ""])


def test_first_tokens_are_those_written_after_the_prompt(engine: Engine) -> None:
    prompts, words = ["She was", "The dog was merely"], ["happy", "hungry"]
    read = engine.tokenizer
    for prompt, found in zip(prompts, first_tokens(engine, prompts, words), strict=True):
        before = len(read(prompt)["input_ids"])
        assert found == {read(f"{prompt} {word}")["input_ids"][before] for word in words}


def test_words_are_told_apart_by_their_first_tokens(engine: Engine) -> None:
    prompts, words = ["She was", "The dog was merely"], ["happy", "hungry", "salt", "hungry"]
    tokens = word_tokens(engine, prompts, words)
    assert [set(of) for of in tokens.tolist()] == first_tokens(engine, prompts, words)
    assert told_apart(tokens).tolist() == [True, False, True, False]
    tokens[1, 0] = tokens[1, 2]  # alike after one of the prompts is alike
    assert told_apart(tokens).tolist() == [False] * 4


def test_a_prompt_that_flows_into_the_word_is_refused(gpt_like: Engine) -> None:
    # A tokenizer that does not stop at words makes one token of what it has often seen.
    greedy = Tokenizer(models.BPE())
    greedy.train_from_iterator(["She was happy"] * 9, trainers.BpeTrainer(show_progress=False))
    engine = replace(gpt_like, tokenizer=PreTrainedTokenizerFast(tokenizer_object=greedy))
    with pytest.raises(TextError, match="'She was': its end shares a token with the word"):
        first_tokens(engine, ["She was"], ["happy"])
