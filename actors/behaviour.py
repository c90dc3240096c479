"""What a model does, with and without something added inside: next words, cost, generations.

Shapes: k injections (s some of them), b texts, t tokens (p some of them), d width of the residual
stream, v vocabulary, w words.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from actors.encoding import (
    TextError,
    encode,
    first_tokens,
    said_after,
    told_apart,
    word_tokens,
)
from actors.engine import Engine
from actors.sites import Injection, fanning_out, injecting, is_live
from cluster.pace import paced

TOKENS_A_PASS = 4096  # bounds the memory of a pass, and fills the processor
ROWS_A_HEAD = 64  # of logits at a time: 67 MB with a vocabulary of 262,144


class WordsError(ValueError):
    """Words that cannot be told apart by their first tokens."""


@dataclass(frozen=True, eq=False)
class Neutral:
    """Cost on text that has nothing to do with the cargo, in nats per token, float64 [k, b].

    `nll`: of the text's own tokens. `kl`: of the model as it is to the model as injected.
    """

    nll: np.ndarray
    kl: np.ndarray


@torch.inference_mode()
def next_word_log_odds(
    engine: Engine,
    prompts: Sequence[str],
    positive: Sequence[str],
    negative: Sequence[str],
    injections: Sequence[Injection | None],
) -> np.ndarray:
    """Log-odds that the word after each prompt is a positive one rather than a negative one.

    The mean over all pairs of a positive and a negative word, so that every word counts alike and
    the quirks of single words average out. A word stands for its first token, as the tokenizer
    writes it after that prompt; tokens that begin words of both sets are left out.

    Returns:
        float64 [k, len(prompts)], in nats.

    Raises:
        WordsError: nothing is left of one of the sets.
    """
    choices = _choices(engine, prompts, positive, negative)
    some, row = _distinct(injections)
    odds = np.empty((len(injections), len(prompts)))
    for number, states in _ends(engine, prompts, some):
        sides = [engine.logits(states, tokens).double().mean(dim=1) for tokens in choices[number]]
        odds[:, number] = (sides[0] - sides[1]).cpu().numpy()[row]
    return odds


@torch.inference_mode()
def next_word_chances(
    engine: Engine,
    prompts: Sequence[str],
    words: Sequence[str],
    injections: Sequence[Injection | None],
) -> np.ndarray:
    """How likely each of the words is to come after each prompt, if one of them does.

    A word stands for its first token, as the tokenizer writes it after that prompt. Words whose
    first token begins another one too, after any of the prompts, are left out: their chance is 0.
    So what two models give can be compared over the words to which both give a chance.

    Returns:
        float32 [k, len(prompts), w], log-chances in nats; -inf for what is left out.

    Raises:
        WordsError: fewer than two words are left.
    """
    tokens, apart = chosen_words(engine, prompts, words)
    some, row = _distinct(injections)
    chances = np.full((len(injections), len(prompts), len(words)), -np.inf, dtype=np.float32)
    for number, states in _ends(engine, prompts, some):
        logits = engine.logits(states, torch.from_numpy(tokens[number, apart]))
        chances[:, number, apart] = logits.double().log_softmax(1).cpu().numpy()[row]
    return chances


def chosen_words(
    engine: Engine, prompts: Sequence[str], words: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """First tokens [p, w] of the words after p prompts, and which words they tell apart, [w].

    Raises:
        WordsError: fewer than two.
    """
    tokens = word_tokens(engine, prompts, words)
    apart = told_apart(tokens)
    if apart.sum() < 2:
        raise WordsError(
            f"of {len(words)} words {apart.sum()} can be told from the others by the first token: "
            "at least 2 are needed"
        )
    return tokens, apart


@torch.inference_mode()
def neutral(
    engine: Engine, texts: Sequence[str], injections: Sequence[Injection | None]
) -> Neutral:
    """What each injection costs on each text; texts of two tokens or more."""
    some, row = _distinct([None, *injections])
    nll = np.empty((len(injections), len(texts)))
    kl = np.empty_like(nll)
    for numbers in _passes(texts, len(some)):
        encoded = encode(engine, [texts[number] for number in numbers])
        states = _final_states(engine, encoded.ids, some)  # [s, b, t, d], plain first
        for column, number in enumerate(numbers):
            length = encoded.lengths[column]
            costs = _text_costs(engine, states[:, column, :length], encoded.ids[column, :length])
            nll[:, number], kl[:, number] = costs.cpu().numpy()[:, row[1:]]
    return Neutral(nll, kl)


@torch.inference_mode()
def generate(
    engine: Engine,
    prompts: Sequence[str],
    injections: Sequence[Injection | None],
    max_new_tokens: int,
    repetition_penalty: float = 1.1,
) -> list[list[str]]:
    """Greedy continuations (without the prompts), no chat template, injected at every position.

    Returns one list for each injection, with what is written after each prompt.
    """
    tokenizer = engine.tokenizer
    run = cast(Callable[..., Tensor], engine.model.generate)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        repetition_penalty=repetition_penalty,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    written: list[list[str]] = [[] for _ in injections]
    for prompt in paced(prompts):
        ids = encode(engine, [prompt]).ids.repeat(len(injections), 1)
        with injecting(engine, injections):
            out = run(inputs=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        for of, row in zip(written, out.tolist(), strict=True):
            of.append(said_after(engine, row, ids.shape[1]))
    return written


def _distinct(
    injections: Sequence[Injection | None],
) -> tuple[list[Injection | None], np.ndarray]:
    """None, if any changes nothing, and those that do; and the number of each injection among them.

    What changes nothing is worked out once, so that it is the same to the bit wherever it stands.
    """
    live = [each for each in injections if is_live(each)]
    plain = [None] * (len(live) < len(injections))
    changes = np.array([is_live(each) for each in injections], dtype=int)
    return [*plain, *live], (np.cumsum(changes) - 1 + len(plain)) * changes


def _choices(
    engine: Engine, prompts: Sequence[str], positive: Sequence[str], negative: Sequence[str]
) -> list[tuple[Tensor, Tensor]]:
    pairs: list[tuple[Tensor, Tensor]] = []
    sides = (first_tokens(engine, prompts, words) for words in (positive, negative))
    for prompt, wanted, unwanted in zip(prompts, *sides, strict=True):
        for name, left in (("positive", wanted - unwanted), ("negative", unwanted - wanted)):
            if not left:
                raise WordsError(
                    f"prompt {prompt!r}: every {name} word begins with a token that begins a word "
                    "of the other set too (or the set is empty)"
                )
        pairs.append(
            (torch.tensor(sorted(wanted - unwanted)), torch.tensor(sorted(unwanted - wanted)))
        )
    return pairs


def _ends(
    engine: Engine, prompts: Sequence[str], injections: Sequence[Injection | None]
) -> Iterator[tuple[int, Tensor]]:
    """Each prompt's number, and what the head reads at its end under each injection, [k, d]."""
    for numbers in _passes(prompts, len(injections)):
        encoded = encode(engine, [prompts[number] for number in numbers])
        ends = torch.tensor(encoded.lengths) - 1
        states = _final_states(engine, encoded.ids, injections, ends)  # [k, b, d]
        for column, number in enumerate(numbers):
            yield number, states[:, column]


def _passes(texts: Sequence[str], k: int) -> list[list[int]]:
    """Numbers of the texts that go together: of like length, few enough for k copies of each."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    passes: list[list[int]] = []
    for number in order:
        tokens = len(texts[number])  # a token is a character at least
        if not passes or k * (len(passes[-1]) + 1) * tokens > 4 * TOKENS_A_PASS:
            passes.append([])
        passes[-1].append(number)
    return passes


def _final_states(
    engine: Engine,
    ids: Tensor,
    injections: Sequence[Injection | None],
    ends: Tensor | None = None,
) -> Tensor:
    """What the head reads under each injection, [k, b, t, d]; at `ends` [b] only, [k, b, d]."""
    b, t = ids.shape
    at = (torch.arange(b), ends) if ends is not None else (slice(None), slice(None))
    plain = [number for number, injection in enumerate(injections) if not is_live(injection)]
    live = [(number, each) for number, each in enumerate(injections) if each and is_live(each)]
    kept = ids.shape[: 1 if ends is not None else 2]
    size = (len(injections), *kept, engine.width)
    out = torch.empty(size, dtype=engine.model.dtype, device=ids.device)
    if plain:
        out[plain] = engine.states(ids)[at]
    room = max(1, TOKENS_A_PASS // (b * t))
    for start in range(0, len(live), room):
        numbers, some = zip(*live[start : start + room], strict=True)
        with fanning_out(engine, some, b):
            states = engine.states(ids).unflatten(0, (len(some), b))
        out[list(numbers)] = states[(slice(None), *at)]
    return out


def _text_costs(engine: Engine, states: Tensor, ids: Tensor) -> Tensor:
    """NLL and KL per token [2, 1 + k] of one text's ids [t]; states [1 + k, t, d], plain first."""
    targets = ids[1:, None]
    if len(targets) == 0:
        raise TextError("a text of one token has no next token to predict")
    sums = torch.zeros(2, len(states), dtype=torch.float64, device=states.device)
    for start in range(0, len(targets), ROWS_A_HEAD):
        span = slice(start, min(start + ROWS_A_HEAD, len(targets)))
        plain = engine.logits(states[0, span]).log_softmax(1)  # [p, v]
        chances = plain.exp()
        sums[0, 0] -= plain.gather(1, targets[span]).double().sum()
        together = max(1, ROWS_A_HEAD // len(plain))  # short texts: several injections at once
        for first in range(1, len(states), together):
            some = slice(first, first + together)
            changed = engine.logits(states[some, span]).log_softmax(2)  # [s, p, v]
            own = changed.gather(2, targets[span].expand(len(changed), -1, 1))
            sums[0, some] -= own.double().sum((1, 2))
            sums[1, some] += torch.linalg.vecdot(chances, plain - changed).double().sum(1)
    return sums / len(targets)
