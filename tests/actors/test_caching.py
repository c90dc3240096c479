"""Caches taken out and put back: a model goes on from its own cells as if it had read the text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.caching import (
    CacheError,
    Read,
    cell_sites,
    continuation_nll,
    fill,
    importance,
    know,
    read,
    reread,
)
from actors.encoding import encode
from actors.engine import Engine, load

TEXT = "She reads the old map slowly, and then folds it away again. Rain fell on the tin roof."
PREFIX = 12  # of which the sliding windows of tiny models, 8 tokens, forget some


@pytest.fixture(scope="module")
def engine_of(checkpoint: Callable[[str], Path]) -> Callable[[str], Engine]:
    engines: dict[str, Engine] = {}
    return lambda case: engines.setdefault(case, load(checkpoint(case)))


def in_one_pass(engine: Engine, ids: np.ndarray) -> float:
    """Nats per token after the prefix and one token more, without any cache: the oracle."""
    tokens = torch.from_numpy(ids)[None]
    chances = engine.logits(engine.states(tokens)).log_softmax(-1)[0, PREFIX:-1]
    return -float(chances.gather(1, tokens[0, PREFIX + 1 :, None]).double().mean())


def after_cache(engine: Engine, of: Read, *others: dict[str, np.ndarray]) -> np.ndarray:
    return continuation_nll(engine, of.ids[PREFIX:], [of.first(PREFIX), *others])


def test_goes_on_from_its_own_cells_as_from_the_text(
    case: str, engine_of: Callable[[str], Engine]
) -> None:
    engine = engine_of(case)
    (own,) = read(engine, "tiny", [TEXT])
    (nll,) = after_cache(engine, own)
    assert nll == pytest.approx(in_one_pass(engine, own.ids), abs=1e-4)


def test_variants_side_by_side_are_as_each_alone(
    case: str, engine_of: Callable[[str], Engine]
) -> None:
    engine = engine_of(case)
    own, other = read(engine, "tiny", [TEXT, TEXT[::-1]])
    together = after_cache(engine, own, other.first(PREFIX), own.first(PREFIX))
    alone = continuation_nll(engine, own.ids[PREFIX:], [other.first(PREFIX)])
    assert together[1] == pytest.approx(alone[0], abs=1e-5)
    assert together[2] == pytest.approx(together[0], abs=1e-6)
    assert abs(together[1] - together[0]) > 1e-3  # what is cached matters


def test_texts_are_read_as_each_alone(engine_of: Callable[[str], Engine]) -> None:
    engine = engine_of("gemma3_text")
    texts = [TEXT, "A short one."]
    for mine, (alone,) in zip(
        read(engine, "tiny", texts), (read(engine, "tiny", [text]) for text in texts), strict=True
    ):
        assert mine.ids.tolist() == alone.ids.tolist()
        assert mine.spans.tolist() == alone.spans.tolist()
        for site, held in mine.cells.items():
            np.testing.assert_allclose(held, alone.cells[site], rtol=1e-3, atol=1e-4)


def test_spans_are_where_tokens_stand(engine_of: Callable[[str], Engine]) -> None:
    engine = engine_of("gemma3_text")
    (own,) = read(engine, "tiny", [TEXT])
    assert own.spans[0].tolist() == [0, 0]  # a first token of its own
    assert "".join(TEXT[start:end] for start, end in own.spans) == TEXT
    assert own.ids.tolist() == encode(engine, [TEXT]).ids[0].tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cells: cells.pop("values.2"), "the cache has no values.2; it needs keys.0 to"),
        (lambda cells: cells.update({"keys.1": cells["keys.1"][:, :5]}), "keys.1: cells of width"),
        (lambda cells: cells.update({"keys.1": cells["keys.1"][:5]}), "5, 12 tokens side by side"),
        (lambda cells: cells.update({"keys.1": cells["keys.1"] * np.nan}), "keys.1: cells with"),
    ],
)
def test_cells_that_do_not_fit_are_refused(
    change: Callable[[dict[str, np.ndarray]], object],
    said: str,
    engine_of: Callable[[str], Engine],
) -> None:
    engine = engine_of("llama")
    (own,) = read(engine, "tiny", [TEXT])
    cells = own.first(PREFIX)
    change(cells)
    with pytest.raises(CacheError, match=said):
        fill(engine, [cells])


def test_a_continuation_has_something_to_predict(engine_of: Callable[[str], Engine]) -> None:
    engine = engine_of("llama")
    (own,) = read(engine, "tiny", [TEXT])
    with pytest.raises(CacheError, match="of 3 tokens that are fed, 3 known ones leave none"):
        continuation_nll(engine, own.ids[:3], [own.first(PREFIX)], known=3)


def test_what_is_fed_and_known_is_as_if_it_were_cached(
    case: str, engine_of: Callable[[str], Engine]
) -> None:
    engine = engine_of(case)
    (own,) = read(engine, "tiny", [TEXT])
    (later,) = continuation_nll(engine, own.ids[PREFIX - 5 :], [own.first(PREFIX - 5)], known=6)
    assert later == pytest.approx(float(after_cache(engine, own)[0]), abs=1e-4)


@pytest.mark.parametrize("name", ["gemma3_text", "gpt2", "bloom", "llama"])
def test_own_states_are_the_models_own(name: str, engine_of: Callable[[str], Engine]) -> None:
    engine = engine_of(name)
    ids = encode(engine, [TEXT]).ids
    with torch.inference_mode():
        hidden = engine.model(input_ids=ids, output_hidden_states=True).hidden_states
    plain, deep = (know(engine, ids[0].numpy(), layers).states for layers in (0, 2))
    width = engine.width
    np.testing.assert_allclose(plain[:, :width], hidden[0][0], rtol=1e-5)
    np.testing.assert_allclose(plain[1:, width:], plain[:-1, :width])
    assert not plain[0, width:].any()
    np.testing.assert_allclose(deep, hidden[2][0], rtol=1e-4, atol=1e-4)


def test_the_cells_of_the_first_layers_are_known_with_their_state(
    case: str, engine_of: Callable[[str], Engine]
) -> None:
    engine = engine_of(case)
    (own,) = read(engine, "tiny", [TEXT])
    known = know(engine, own.ids, 2)
    assert set(known.cells) == set(cell_sites(2))
    for site, cells in known.cells.items():
        np.testing.assert_allclose(cells, own.cells[site], rtol=1e-4, atol=1e-5)
    assert not know(engine, own.ids, 0).cells


def test_sites_are_keys_then_values() -> None:
    assert cell_sites(2) == ("keys.0", "keys.1", "values.0", "values.1")


def test_what_is_read_again_is_what_the_model_holds(
    case: str, engine_of: Callable[[str], Engine]
) -> None:
    engine = engine_of(case)
    (own,) = read(engine, "tiny", [TEXT])
    again = reread(engine, own.ids, own.first(PREFIX))
    assert set(again) == set(own.cells)
    for site, cells in own.cells.items():
        np.testing.assert_allclose(again[site], cells, rtol=1e-3, atol=1e-4)
    whole = reread(engine, own.ids, own.cells)
    assert all(np.array_equal(whole[site], cells) for site, cells in own.cells.items())


def test_importance_is_what_a_small_change_does(engine_of: Callable[[str], Engine]) -> None:
    """Finite differences, at every token of the cache but the first, are the oracle."""
    engine = engine_of("gemma3_text")
    (own,) = read(engine, "tiny", [TEXT])
    found = importance(engine, [(own.ids, PREFIX)])
    assert set(found) == set(own.cells)
    left = len(own.ids) - PREFIX - 1
    for site, feature in (("keys.2", 3), ("values.2", 5), ("values.0", 0)):
        slopes = []
        for token in range(1, PREFIX):
            nats = []
            for step in (-0.02, 0.02):
                cells = {name: of.copy() for name, of in own.first(PREFIX).items()}
                cells[site][token, feature] += step
                nats.append(float(continuation_nll(engine, own.ids[PREFIX:], [cells])[0]) * left)
            slopes.append((nats[1] - nats[0]) / 0.04)
        expected = np.sqrt(np.mean(np.square(slopes)))
        assert found[site][feature] == pytest.approx(expected, rel=0.05, abs=1e-4)
