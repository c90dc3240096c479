"""Log-odds, costs and generations, checked against the model's own logits one text at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from actors import behaviour
from actors.behaviour import (
    WordsError,
    generate,
    neutral,
    next_word_chances,
    next_word_log_odds,
)
from actors.encoding import TextError, encode, first_tokens
from actors.engine import Engine
from actors.site_names import Site
from actors.sites import Injection, injecting, site_width

PROMPTS = ("She was", "The price of salt was", "A good lamp is")
POSITIVE, NEGATIVE = ("happy", "good"), ("sad", "bad", "hungry")


def injections(engine: Engine, site: str = "residual.1") -> list[Injection | None]:
    draw = np.random.default_rng(3)
    width = site_width(engine, Site.parse(site))
    vectors = draw.standard_normal((3, width)).astype(np.float32)
    strengths = (2.0, 0.0, -3.0)
    live = [Injection(site, *each) for each in zip(vectors, strengths, strict=True)]
    return [live[0], None, *live[1:]]


def own_logits(engine: Engine, text: str, injection: Injection | None) -> Tensor:
    """[t, v] in float64, as the model computes them for this text alone."""
    with torch.inference_mode(), injecting(engine, [injection]):
        return engine.model(input_ids=encode(engine, [text]).ids).logits[0].double()


@pytest.mark.parametrize("site", ["residual.1", "attention.0", "mlp.2", "values.1"])
def test_log_odds_are_the_models_own(engine: Engine, site: str) -> None:
    several = injections(engine, site)
    odds = next_word_log_odds(engine, PROMPTS, POSITIVE, NEGATIVE, several)
    for column, prompt in enumerate(PROMPTS):
        good, bad = (first_tokens(engine, [prompt], words)[0] for words in (POSITIVE, NEGATIVE))
        assert good
        assert bad
        assert not good & bad
        for row, injection in enumerate(several):
            chances = own_logits(engine, prompt, injection)[-1].softmax(0)
            pairs = [torch.log(chances[one] / chances[other]) for one in good for other in bad]
            expected = torch.stack(pairs).mean()
            assert odds[row, column] == pytest.approx(float(expected), abs=1e-4)


def test_chances_are_the_models_own_among_the_words(engine: Engine) -> None:
    several = injections(engine)
    words = ("happy", "sad", "salt", "happy")
    found = next_word_chances(engine, PROMPTS, words, several)
    assert (found.dtype, found.shape) == (np.float32, (4, 3, 4))
    assert (found[:, :, [0, 3]] == -np.inf).all()  # they cannot be told apart
    for column, prompt in enumerate(PROMPTS):
        tokens = [first_tokens(engine, [prompt], [word])[0].pop() for word in words[1:3]]
        for row, injection in enumerate(several):
            own = own_logits(engine, prompt, injection)[-1, tokens].log_softmax(0)
            np.testing.assert_allclose(found[row, column, 1:3], own, atol=1e-4)
    assert np.array_equal(found[1], found[2])


def test_chances_among_no_two_words_are_refused(gpt_like: Engine) -> None:
    with pytest.raises(WordsError, match="of 3 words 1 can be told from the others"):
        next_word_chances(gpt_like, ["She was"], ["happy", "happy", "sad"], [None])


def test_no_injection_and_strength_0_are_the_same_to_the_bit(engine: Engine) -> None:
    odds = next_word_log_odds(engine, PROMPTS, POSITIVE, NEGATIVE, injections(engine))
    assert np.array_equal(odds[1], odds[2])
    cost = neutral(engine, PROMPTS, injections(engine))
    assert np.array_equal(cost.nll[1], cost.nll[2])
    assert not cost.kl[1:3].any()


def test_how_work_is_cut_into_passes_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = injections(engine)
    odds = next_word_log_odds(engine, PROMPTS, POSITIVE, NEGATIVE, several)
    cost = neutral(engine, PROMPTS, several)
    monkeypatch.setattr(behaviour, "TOKENS_A_PASS", 1)
    monkeypatch.setattr(behaviour, "ROWS_A_HEAD", 2)
    again = next_word_log_odds(engine, PROMPTS, POSITIVE, NEGATIVE, several)
    np.testing.assert_allclose(again, odds, rtol=1e-4, atol=1e-4)
    small = neutral(engine, PROMPTS, several)
    np.testing.assert_allclose(small.nll, cost.nll, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(small.kl, cost.kl, rtol=1e-4, atol=1e-4)


def test_words_that_begin_alike_cannot_be_told_apart(gpt_like: Engine) -> None:
    with pytest.raises(WordsError, match="'She was': every positive word"):
        next_word_log_odds(gpt_like, ["She was"], ["happy"], ["happy", "sad"], [None])
    with pytest.raises(WordsError, match="every negative word"):
        next_word_log_odds(gpt_like, ["She was"], ["happy"], [], [None])


def test_costs_are_the_models_own(engine: Engine, sentences: tuple[str, ...]) -> None:
    several = injections(engine)
    cost = neutral(engine, sentences, several)
    for column, text in enumerate(sentences):
        targets = encode(engine, [text]).ids[0, 1:, None]
        plain = own_logits(engine, text, None)[:-1].log_softmax(1)
        for row, injection in enumerate(several):
            changed = own_logits(engine, text, injection)[:-1].log_softmax(1)
            nll = -changed.gather(1, targets).mean()
            kl = (plain.exp() * (plain - changed)).sum(1).mean()
            assert cost.nll[row, column] == pytest.approx(float(nll), rel=1e-4)
            assert cost.kl[row, column] == pytest.approx(float(kl), rel=1e-3, abs=1e-6)
    assert (cost.kl[[0, 3]] > 0.01).all()


def test_a_text_of_one_token_has_no_cost(gpt_like: Engine) -> None:
    with pytest.raises(TextError, match="one token"):
        neutral(gpt_like, ["a"], [None])


def test_generations_are_greedy(engine: Engine) -> None:
    added = injections(engine)[0]
    injections_of = [None, added]
    written = generate(engine, PROMPTS, injections_of, 5, repetition_penalty=1.0)
    for injection, texts in zip(injections_of, written, strict=True):
        for prompt, text in zip(PROMPTS, texts, strict=True):
            ids = encode(engine, [prompt]).ids
            with torch.inference_mode(), injecting(engine, [injection]):
                for _ in range(5):
                    best = engine.model(input_ids=ids).logits[:, -1:].argmax(-1)
                    ids = torch.cat([ids, best], dim=1)
                    if int(best) == engine.tokenizer.eos_token_id:
                        break
            whole = engine.tokenizer.decode(ids[0].tolist(), skip_special_tokens=True)
            assert prompt + text == whole


def test_an_injection_changes_what_is_generated(engine: Engine) -> None:
    added = injections(engine)[0]
    plain, pushed = generate(engine, PROMPTS, [None, added], 8)
    assert plain != pushed
