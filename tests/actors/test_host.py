"""ModelHost: from a spec to answers, as an actor would give them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from actors import behaviour, reading, training
from actors.anchors import AnchorBatch
from actors.catalog import ModelSpec
from actors.engine import load
from actors.host import ModelHost
from actors.sites import Injection
from actors.training import Training, TrainOrder
from alignment.maps import Affine

SITES = ("residual.1", "mlp.0")


T = TypeVar("T")


def copy_of(value: T) -> T:
    """As it comes out on the other side of an actor call."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301  (made two calls ago, here)


@pytest.fixture(params=["llama", "gemma3_text"])
def host(
    request: pytest.FixtureRequest, checkpoint: Callable[[str], Path], tmp_path: Path
) -> ModelHost:
    return ModelHost(ModelSpec(name="tiny", directory=checkpoint(request.param)), tmp_path)


def test_a_host_knows_its_model(host: ModelHost) -> None:
    facts = host.facts()
    assert (facts.name, facts.layers, facts.width) == ("tiny", 3, 32)
    assert facts.fingerprint


def test_a_host_answers_as_its_engine_does(
    host: ModelHost, checkpoint: Callable[[str], Path], batch: AnchorBatch
) -> None:
    engine = load(checkpoint(host.facts().family))
    read = host.activations(batch, SITES)
    assert read.model == host.facts().fingerprint
    expected = reading.activations(engine, "f", batch, SITES)
    assert all(np.array_equal(read.points[site], expected.points[site]) for site in SITES)
    assert host.forward(batch) == reading.forward(engine, batch)
    pools = reading.pooled(engine, batch.texts, SITES, [0] * len(batch.texts))
    for site, points in host.pooled(batch.texts, SITES, [0] * len(batch.texts)).items():
        assert np.array_equal(points, pools[site])

    added = Injection("residual.1", np.ones(32, dtype=np.float32), 2.0)
    words = (["She was"], ["happy"], ["sad"], [None, added])
    assert np.array_equal(
        host.next_word_log_odds(*words), behaviour.next_word_log_odds(engine, *words)
    )
    among = (["She was"], ["happy", "sad"], [None, added])
    assert np.array_equal(
        host.next_word_chances(*among), behaviour.next_word_chances(engine, *among)
    )
    order = TrainOrder(
        base=Affine(torch.eye(32), torch.zeros(32)).to_bytes(),
        site="residual.1",
        vectors=np.ones((1, 32), np.float32),
        spread=2.0,
        strength=1.0,
        prompts=["She was"],
        held_out=["The dog was"],
        words=["happy", "sad"],
        effects=np.array([[[[1.0, -1.0]] * 2] * 2], np.float32),
        training=Training(epochs=2),
    )
    own = training.train_map(engine, order)
    assert host.train_map(order).map == own.map
    cost = behaviour.neutral(engine, batch.texts, [added])
    assert np.array_equal(host.neutral(batch.texts, [added]).kl, cost.kl)
    asked = (["She was"], [added], 4)
    assert host.generate(*asked) == behaviour.generate(engine, *asked)


def test_no_answer_depends_on_an_earlier_one(host: ModelHost, batch: AnchorBatch) -> None:
    before = host.activations(batch, SITES)
    added = Injection("residual.0", np.full(32, 9.0, dtype=np.float32), 2.0)
    host.next_word_log_odds(["She was"], ["happy"], ["sad"], [added])
    host.neutral(batch.texts, [added])
    host.generate(["She was"], [added], 4)
    after = host.activations(batch, SITES)
    assert all(np.array_equal(before.points[site], after.points[site]) for site in SITES)


def test_what_a_host_returns_and_takes_crosses_processes(
    host: ModelHost, batch: AnchorBatch
) -> None:
    added = copy_of(Injection("mlp.1", np.ones(32, dtype=np.float32), 1.0))
    added.vector.flags.writeable = False  # as the object store hands arrays out
    odds = host.next_word_log_odds(["She was"], ["happy"], ["sad"], [added])
    assert np.isfinite(odds).all()
    read = copy_of(host.activations(batch, SITES))
    assert read.points["mlp.0"].shape == (len(read.rows), 32)
