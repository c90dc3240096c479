"""Maps trained through their target: by effect, from the base, never below it, and as told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from actors.behaviour import WordsError, next_word_chances
from actors.cargo.steering import cosine, injection
from actors.catalog import Derivation, ModelSpec
from actors.encoding import encode
from actors.engine import Engine, load
from actors.site_names import INJECTED, Site
from actors.sites import Injection, fanning_out_at, injecting, site_width
from actors.training import SIGNS, Training, TrainingError, TrainOrder, inconsistency, train_map
from actors.weights import prepare
from alignment.maps import Affine, LowRank, Network, map_from_bytes

SITE = "residual.1"
PROMPTS = tuple(
    f"{who} {did}"
    for who in ("She", "The dog", "Nobody", "The gardener")
    for did in ("was", "reads the old", "crosses the", "argued about the")
)
TRAINED, HELD = PROMPTS[:12], PROMPTS[12:]
WORDS = ("happy", "sad", "hungry", "dog", "map", "roof", "price", "salt", "lamp", "window", "frost")
WORDS += ("ferry", "tin", "brothers", "good", "bad", "slowly", "old", "day", "narrow")
SPREAD, STRENGTH = 4.0, 0.5


def vectors(n: int, width: int = 32) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, width)).astype(np.float32)


def effects(engine: Engine, of: np.ndarray, words: tuple[str, ...]) -> np.ndarray:
    """What vectors do in their own model, as an order wants it."""
    pushed = [injection(SITE, each, SPREAD, sign * STRENGTH) for each in of for sign in SIGNS]
    plain, *changed = next_word_chances(engine, PROMPTS, words, [None, *pushed])
    return np.reshape(np.stack(changed) - plain, (len(of), len(SIGNS), len(PROMPTS), len(words)))


@pytest.fixture(scope="module")
def words(gpt_like: Engine) -> tuple[str, ...]:
    """Those that the tiny tokenizer can tell apart."""
    told = np.isfinite(next_word_chances(gpt_like, PROMPTS, WORDS, [None])[0, 0])
    assert told.sum() >= 8
    return tuple(word for word, apart in zip(WORDS, told, strict=True) if apart)


@pytest.fixture(scope="module")
def turned(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, Tensor]:
    """A twin of the tiny llama in another basis, and the exact matrix [dt, ds] to it."""
    spec = ModelSpec(name="base", directory=checkpoint("llama"))
    made = ModelSpec(name="twin", derived=Derivation(base=spec, recipe="rotated", seed=1))
    where = prepare(made, tmp_path_factory.mktemp("twin"))
    both = [
        load_file(each / "model.safetensors")["model.embed_tokens.weight"]
        for each in (checkpoint("llama"), where)
    ]
    return load(where), torch.linalg.lstsq(*both).solution.T.contiguous()


def affine(weight: Tensor) -> Affine:
    return Affine(weight, torch.zeros(len(weight)))


@pytest.fixture
def order(gpt_like: Engine, turned: tuple[Engine, Tensor], words: tuple[str, ...]) -> TrainOrder:
    """A map that was spoilt, and what three vectors should do."""
    of = vectors(3)
    noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(5)) / 32**0.5
    return TrainOrder(
        base=affine(turned[1] + noise).to_bytes(),
        site=SITE,
        vectors=of,
        spread=SPREAD,
        strength=STRENGTH,
        prompts=TRAINED,
        held_out=HELD,
        words=words,
        effects=effects(gpt_like, of, words),
        training=Training(epochs=25, batch=4),
    )


def closeness(found: bytes, of: np.ndarray, exact: Tensor) -> list[float]:
    """Cosine of each carried vector with what it is in the target."""
    carried = map_from_bytes(found).pushforward(torch.from_numpy(of)).numpy()
    return [cosine(one, exact.numpy() @ own) for one, own in zip(carried, of, strict=True)]


@pytest.mark.parametrize("kind", INJECTED)
def test_gradients_are_those_of_finite_differences(engine: Engine, kind: str) -> None:
    site = Site.parse(f"{kind}.1")
    ids = encode(engine, PROMPTS[:1]).ids.repeat(2, 1)
    draw = torch.Generator().manual_seed(1)
    probe = torch.randn(4, engine.width, generator=draw, dtype=torch.float64)

    def probed(added: Tensor) -> Tensor:
        with fanning_out_at(engine, site, added, len(ids)):
            return (engine.states(ids)[:, -1].double() * probe).sum()

    added = torch.randn(2, site_width(engine, site), generator=draw, requires_grad=True)
    (gradient,) = torch.autograd.grad(probed(added), added)
    along = gradient / gradient.norm()
    with torch.no_grad():
        step = 3e-3  # the model computes in float32: a smaller one would be lost in rounding
        rise = (probed(added + step * along) - probed(added - step * along)) / (2 * step)
        across = torch.randn(added.shape, generator=draw)
        across -= (across * along).sum() * along
        level = probed(added + step * across) - probed(added - step * across)
    # Without rotary embeddings, the same added to all keys does nothing: all is rounding then.
    slope = pytest.approx(gradient.norm().item(), rel=1e-2, abs=2e-3)
    assert rise.item() == slope
    assert abs(level.item() / (2 * step * across.norm().item())) < max(1e-2 * slope.expected, 2e-3)


def test_what_gradients_reach_is_added_as_all_else(engine: Engine) -> None:
    ids = encode(engine, PROMPTS[:1]).ids
    for kind in INJECTED:
        site = Site(kind, 1)
        added = vectors(2, site_width(engine, site))
        with torch.no_grad(), fanning_out_at(engine, site, torch.from_numpy(added), 1):
            found = engine.states(ids)
        for row, one in enumerate(added):
            with torch.no_grad(), injecting(engine, [Injection(str(site), one, 1.0)]):
                own = engine.states(ids)
            torch.testing.assert_close(found[row : row + 1], own)


def test_training_mends_a_map_that_was_spoilt(
    turned: tuple[Engine, Tensor], order: TrainOrder
) -> None:
    target, exact = turned
    found = train_map(target, order)
    assert found.improved
    assert min(found.held_out) < found.held_out[0] / 4
    assert found.losses[-1] < found.losses[0] / 4
    before, after = (closeness(each, order.vectors, exact) for each in (order.base, found.map))
    assert all(np.array(after) > before)
    # What is returned does what was measured.
    again = train_map(target, replace(order, base=found.map, training=Training(epochs=0)))
    assert again.held_out == (pytest.approx(min(found.held_out), rel=1e-3),)
    # All that is orthogonal to the vectors is carried as before.
    beyond = torch.from_numpy(np.linalg.svd(order.vectors)[2][3:])
    own, base = (map_from_bytes(each).pushforward(beyond) for each in (found.map, order.base))
    torch.testing.assert_close(own, base, atol=1e-5, rtol=1e-4)


def test_training_comes_to_the_same_bits(turned: tuple[Engine, Tensor], order: TrainOrder) -> None:
    shorter = replace(order, training=Training(epochs=2, batch=5))
    one, other = train_map(turned[0], shorter), train_map(turned[0], shorter)
    assert (one.map, one.losses, one.held_out) == (other.map, other.losses, other.held_out)
    assert len(one.losses) == 2 * 3


def test_how_prompts_are_cut_into_passes_changes_nothing(
    turned: tuple[Engine, Tensor], order: TrainOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = replace(order, training=Training(epochs=2))
    together = train_map(turned[0], shorter)
    monkeypatch.setattr("actors.training.TOKENS_A_PASS", 1)
    alone = train_map(turned[0], shorter)
    assert alone.losses == pytest.approx(together.losses, rel=1e-3)


def test_a_map_that_is_right_is_left_as_it_is(
    turned: tuple[Engine, Tensor], order: TrainOrder
) -> None:
    found = train_map(turned[0], replace(order, base=affine(turned[1]).to_bytes()))
    assert found.held_out[0] == pytest.approx(0, abs=1e-6)
    assert min(closeness(found.map, order.vectors, turned[1])) > 0.9999


def test_training_that_wins_nothing_returns_the_base(
    turned: tuple[Engine, Tensor], order: TrainOrder
) -> None:
    target, exact = turned
    wild = Training(learning_rate=1e3, patience=2)
    found = train_map(target, replace(order, base=affine(exact).to_bytes(), training=wild))
    assert not found.improved
    assert found.map == affine(exact).to_bytes()
    assert len(found.held_out) == 1 + wild.patience
    assert min(found.held_out) == found.held_out[0]


def test_a_map_of_low_rank_stays_one(turned: tuple[Engine, Tensor], order: TrainOrder) -> None:
    left, sizes, right = torch.linalg.svd(turned[1])
    base = LowRank((left * sizes)[:, :8].contiguous(), right[:8].contiguous(), torch.zeros(32))
    training = Training(rank=2, epochs=6, batch=4)
    found = train_map(turned[0], replace(order, base=base.to_bytes(), training=training))
    trained = map_from_bytes(found.map)
    assert found.improved
    assert isinstance(trained, LowRank)
    assert trained.rank == 8 + 2
    # Three vectors that are one and the same span no more than a line.
    same = replace(order, base=base.to_bytes(), training=training, vectors=order.vectors[[0] * 3])
    alike = map_from_bytes(train_map(turned[0], same).map)
    assert isinstance(alike, LowRank)
    assert alike.rank <= 8 + 1


def test_one_vector_is_trained_alone(turned: tuple[Engine, Tensor], order: TrainOrder) -> None:
    alone = replace(order, vectors=order.vectors[:1], effects=order.effects[:1])
    found = train_map(turned[0], alone)
    assert min(found.held_out) < found.held_out[0] / 2


def test_nothing_is_left_in_the_model(turned: tuple[Engine, Tensor], order: TrainOrder) -> None:
    target = turned[0]
    before = {name: each.clone() for name, each in target.model.state_dict().items()}
    train_map(target, replace(order, training=Training(epochs=1)))
    after = target.model.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items())
    assert all(each.grad is None for each in target.model.parameters())
    assert not any(each._forward_hooks for each in target.blocks.modules())


def test_words_that_the_target_cannot_tell_apart_are_left_out(
    turned: tuple[Engine, Tensor], order: TrainOrder
) -> None:
    twice = replace(
        order,
        words=(*order.words, order.words[0]),
        effects=order.effects[..., [*range(len(order.words)), 0]],
        training=Training(epochs=0),
    )
    assert train_map(turned[0], twice).words == order.words[1:]


NETWORK = Network(
    torch.eye(32), torch.zeros(32), torch.zeros(3, 32), torch.zeros(3), torch.zeros(32, 3),
    torch.zeros(3),
)  # fmt: skip
REFUSED: dict[str, tuple[Callable[[TrainOrder], dict[str, Any]], str]] = {
    "network": (
        lambda _: {"base": NETWORK.to_bytes()},
        r"a map of kind network cannot be trained; allowed: affine, low_rank",
    ),
    "vectors": (
        lambda order: {"vectors": order.vectors[:, 1:]},
        r"vectors of shape \(3, 31\): the base map reads \[n, 32\]",
    ),
    "no vectors": (lambda order: {"vectors": order.vectors[:0]}, r"vectors of shape \(0, 32\)"),
    "zero": (
        lambda order: {"vectors": order.vectors * np.array([[1], [0], [1]], np.float32)},
        r"vector 1 has a length of 0: it has no direction",
    ),
    "not a number": (
        lambda order: {"vectors": order.vectors * np.float32(np.nan)},
        r"vector 0 has a length of nan",
    ),
    "nothing carried": (
        lambda _: {"base": affine(torch.zeros(32, 32)).to_bytes()},
        r"vector 0: the base map carries it to a length of 0",
    ),
    "site": (
        lambda _: {"site": "keys.1"},
        r"the base map writes width 32, this model has 16 at keys\.1",
    ),
    "strength": (lambda _: {"strength": 0.0}, r"strength 0: it must be above 0, and finite"),
    "spread": (lambda _: {"spread": float("inf")}, r"spread inf: it must be above 0"),
    "no prompts": (lambda _: {"prompts": ()}, r"prompts: there are none"),
    "nothing held out": (lambda _: {"held_out": ()}, r"held_out: there are none"),
    "both": (
        lambda order: {"held_out": (order.prompts[3], *order.held_out[1:])},
        r"prompt 'Sh.*' is held out, and to be trained on too",
    ),
    "effects": (
        lambda order: {"effects": order.effects[:, :, 1:]},
        r"effects of shape \(3, 2, 15, \d+\): \(3, 2, 16, \d+\) is wanted, finite",
    ),
    "effects that are none": (
        lambda order: {"effects": order.effects * np.nan},
        r"is wanted, finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_together_is_refused_in_one_line(
    turned: tuple[Engine, Tensor], order: TrainOrder, what: str
) -> None:
    change, said = REFUSED[what]
    with pytest.raises(TrainingError, match=said) as caught:
        train_map(turned[0], replace(order, **change(order)))
    assert "\n" not in str(caught.value)


def test_words_that_are_all_alike_are_refused(
    turned: tuple[Engine, Tensor], order: TrainOrder
) -> None:
    alike = replace(order, words=("map", "map"), effects=order.effects[..., :2])
    with pytest.raises(WordsError, match="of 2 words 0 can be told from the others"):
        train_map(turned[0], alike)


@given(st.integers(1, 6), st.floats(0.01, 100), st.integers(0, 99))
def test_a_rotation_at_any_scale_is_consistent(n: int, scale: float, seed: int) -> None:
    drawn = np.random.default_rng(seed).standard_normal((n, 8))
    units = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(seed).normal(size=(12, 8))))[0]
    assert inconsistency(scale * units @ turn.T, units).item() == pytest.approx(0, abs=1e-12)
    moved = (units @ turn.T + 0.1 * torch.ones(12)).requires_grad_()
    assert torch.autograd.gradcheck(inconsistency, (moved, units))
