"""A refit reaches what the source's adapter changes: in the same model, nearly all of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.adapter_refit import changes, own_texts, refit_adapter
from actors.adapter_training import AdapterTraining
from actors.adapting import adapting
from actors.encoding import encode
from actors.engine import Engine, load
from actors.examples import Example, foreseen
from alignment.updates import Update
from tests.actors.drawn import drawn_adapter


@pytest.fixture(scope="module")
def llama(checkpoint: Callable[[str], Path]) -> Engine:
    return load(checkpoint("llama"))


@pytest.fixture(scope="module")
def adapter(llama: Engine) -> dict[str, Update]:
    return drawn_adapter(llama, 0.05)


def test_changes_are_what_the_adapter_adds(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    tokens = np.arange(2, 60)
    whole, late = Example(sentences[0]), Example(sentences[0], sentences[0].index("crosses"))
    _, (found, part) = changes(llama, adapter, [whole, late], tokens)
    ids = encode(llama, sentences[:1]).ids
    with torch.inference_mode():
        plain = llama.logits(llama.states(ids))[0, -1, 2:60].log_softmax(-1)
        with adapting(llama, adapter):
            changed = llama.logits(llama.states(ids))[0, -1, 2:60].log_softmax(-1)
    last = torch.from_numpy(found.added[-1]).float()  # the text ends with its last word
    torch.testing.assert_close(last, changed - plain, atol=1e-3, rtol=1e-2)
    assert len(found.ends) == len(found.added) == (ids >= 0).sum()
    assert found.ends[-1] == len(sentences[0])
    kept = found.ends >= late.start  # where that is said which is to be foreseen
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(part.ends, found.ends[kept])
    np.testing.assert_array_equal(part.added, found.added[kept])


def test_what_an_adapter_changes_is_taken_over(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    texts = [Example(each) for each in (*sentences, *sentences)]  # learned from, and looked at
    tokens = np.arange(2, 260)
    _, taught = changes(llama, adapter, texts, tokens)
    training = AdapterTraining(rank=4, learning_rate=1e-2, batch=3, epochs=30)
    made = refit_adapter(llama, texts, taught, len(sentences), tokens, training)
    assert made.held_out[-1] < 0.1 * made.held_out[0]
    _, said = changes(llama, made.best, texts[: len(sentences)], tokens)
    for mine, theirs in zip(said, taught, strict=False):
        near = np.corrcoef(mine.added.ravel(), theirs.added.ravel())[0, 1]
        assert near > 0.9


def test_what_is_said_is_taken_over_outright(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    texts = [Example(each) for each in (*sentences, *sentences)]
    tokens = np.arange(2, 260)
    _, taught = changes(llama, adapter, texts, tokens, outright=True)
    assert all(each.outright for each in taught)
    _, added = changes(llama, adapter, texts, tokens)
    _, plain = changes(llama, {}, texts, tokens, outright=True)
    for said, change, before in zip(taught, added, plain, strict=True):
        np.testing.assert_allclose(said.added, before.added + change.added, atol=0.02)
    training = AdapterTraining(rank=4, learning_rate=1e-2, batch=3, epochs=30)
    made = refit_adapter(llama, texts, taught, len(sentences), tokens, training)
    assert made.held_out[-1] < 0.1 * made.held_out[0]
    _, said = changes(llama, made.best, texts[:1], tokens, outright=True)
    near = np.corrcoef(said[0].added.ravel(), taught[0].added.ravel())[0, 1]
    assert near > 0.9


def test_no_more_is_read_than_may_be(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    tokens = np.arange(2, 260)
    texts = [Example(each) for each in sentences]
    _, taught = changes(llama, adapter, texts, tokens)
    sizes = [encode(llama, [text]).lengths[0] for text in sentences]
    training = AdapterTraining(rank=2, batch=1, epochs=2)
    for most, count in ((2 * sum(sizes[:2]), 2), (2 * sum(sizes[:2]) - 1, 1), (1, 1), (None, 3)):
        order = (texts, taught, len(sentences) - 3, tokens, training, most)
        assert refit_adapter(llama, *order).tokens == 2 * sum(sizes[:count])


def test_the_likeliest_tokens_are_kept(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    tokens = np.arange(2, 60)
    kept, _ = changes(llama, adapter, [Example(each) for each in sentences], tokens, 10)
    assert len(kept) == 10
    assert (np.diff(kept) > 0).all()
    chances = np.zeros(len(tokens))
    for updates in ({}, adapter):
        for text in sentences:
            with torch.inference_mode(), adapting(llama, updates):
                logits = llama.logits(llama.states(encode(llama, [text]).ids)[0])
            chances += logits[:, 2:60].softmax(-1).sum(0).numpy()
    assert set(kept) == set(np.argsort(-chances)[:10])


def test_an_adapted_model_writes_texts_of_its_own(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    openings = [sentence.split()[0] for sentence in sentences]
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    texts = own_texts(llama, adapter, openings, 5)
    assert torch.rand(1) == before, "no other draw is disturbed"
    both = zip(texts, openings, strict=True)
    assert all(each.text.startswith(opening) and each.text != opening for each, opening in both)
    assert [each.start for each in texts] == [len(opening) for opening in openings]
    assert texts == own_texts(llama, adapter, openings, 5)
    assert texts != own_texts(llama, adapter, openings, 5, seed=1)
    assert texts != own_texts(llama, {}, openings, 5)
    # Of the likeliest token alone nothing is left to chance.
    likeliest = own_texts(llama, adapter, openings, 5, least=1.0)
    assert likeliest == own_texts(llama, adapter, openings, 5, seed=1, least=1.0)


def test_a_model_that_knows_how_texts_begin_needs_no_opening(
    checkpoint: Callable[[str], Path], sentences: tuple[str, ...]
) -> None:
    gemma = load(checkpoint("gemma"))
    assert len(gemma.tokenizer("")["input_ids"]) == 1, "a first token of its own"
    openings = [sentence.split()[0] for sentence in sentences]
    alone = own_texts(gemma, {}, openings, 5)
    assert {each.start for each in alone} == {0}
    begun = own_texts(gemma, {}, openings, 5, begun=True)
    assert [each.start for each in begun] == [len(opening) for opening in openings]


def test_texts_are_foreseen_as_far_as_is_asked(
    llama: Engine, adapter: dict[str, Update], sentences: tuple[str, ...]
) -> None:
    texts, tokens = [Example(each) for each in (*sentences, *sentences)], np.arange(2, 260)
    _, taught = changes(llama, adapter, texts, tokens)
    training = AdapterTraining(rank=4, learning_rate=1e-2, batch=3, epochs=10)
    order = (llama, texts, taught, len(sentences), tokens, training, None)
    made = [refit_adapter(*order, share) for share in (0.0, 2.0)]
    told = []
    for each in made:
        with adapting(llama, each.best):
            told.append(foreseen_nats(llama, sentences))
    assert told[1] < 0.9 * told[0]
    assert min(made[1].held_out[1:]) > min(made[0].held_out[1:])


def foreseen_nats(engine: Engine, texts: tuple[str, ...]) -> float:
    found, tokens = foreseen(engine, [Example(text) for text in texts])
    return float(found.sum() / tokens.sum())
