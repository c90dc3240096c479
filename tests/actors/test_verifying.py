"""How well a target foresees its own continuations after a cache that it was handed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors import verifying
from actors.caching import CacheError, continuation_nll, read
from actors.engine import Engine, load
from actors.verifying import CONTINUATIONS, TOKENS, begin

TEXT = "She reads the old map slowly, and then folds it away again. Rain fell on the tin roof."


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "bloom"])
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Engine:
    return load(checkpoint(request.param))


def test_each_continuation_is_judged_as_by_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own,) = read(engine, "tiny", [TEXT])
    trial = begin(engine, own)
    assert trial.said.shape == (CONTINUATIONS, TOKENS)
    assert len(np.unique(trial.said, axis=0)) > 1
    half = {site: cells * 0.5 for site, cells in own.cells.items()}
    last = len(own.ids) - 1
    for cells in (own.cells, half):
        some = {site: of[:last] for site, of in cells.items()}
        expected = [
            continuation_nll(engine, np.concatenate((own.ids[last:], said)), [some])[0]
            for said in trial.said
        ]
        np.testing.assert_allclose(trial.nats(engine, cells), expected, atol=1e-4)
    monkeypatch.setattr(verifying, "TOGETHER", 3 * last)
    np.testing.assert_allclose(trial.nats(engine, half), expected, atol=1e-4)
    assert begin(engine, own).said.shape == (CONTINUATIONS, TOKENS)


def test_what_the_target_would_say_is_least_surprising_after_its_own_cache(engine: Engine) -> None:
    (own,) = read(engine, "tiny", [TEXT])
    trial = begin(engine, own)
    native = trial.nats(engine, own.cells)
    nothing = trial.nats(engine, own.first(2))
    assert native.mean() < nothing.mean()
    # What a model draws costs it as many nats as its distributions have entropy: the same draws
    # come again.
    assert np.array_equal(begin(engine, own).said, trial.said)


def test_a_text_that_fills_the_context_is_refused(engine: Engine) -> None:
    (own,) = read(engine, "tiny", [TEXT])
    for ids in (own.ids[:1], np.resize(own.ids, engine.context - TOKENS + 1)):
        with pytest.raises(CacheError, match=f"{len(ids)} tokens leaves no room to go on from"):
            begin(engine, replace(own, ids=ids))
