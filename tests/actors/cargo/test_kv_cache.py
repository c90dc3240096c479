"""Caches between tiny models: which cell stands for which token, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.cached_text import OWN, Read, covering, map_inputs, own_tokens
from actors.caching import CacheError, cell_sites, continuation_nll, know, read
from actors.cargo.kv_cache import carry, receive, with_own
from actors.engine import Engine, load
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap, CacheMoments, Reduction

TEXT = "He was happy, she was sad, and the dog was merely hungry. Nobody had told the gardener."


@st.composite
def cuts(draw: st.DrawFn) -> np.ndarray:
    """Tokens that cover a text of 20 characters, with or without a first one of their own."""
    inner = draw(st.sets(st.integers(1, 19)))
    ends = [*sorted(inner), 20]
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    return np.array([(0, 0)] * draw(st.integers(0, 1)) + spans)


@given(cuts(), cuts())
def test_each_token_takes_the_cell_that_covers_its_last_character(
    source: np.ndarray, target: np.ndarray
) -> None:
    for (start, end), row in zip(target, covering(source, target), strict=True):
        if end > start:
            assert source[row][0] < end <= source[row][1]
        else:
            assert row == 0


@given(cuts(), cuts())
def test_no_carried_token_takes_the_first_cell(source: np.ndarray, target: np.ndarray) -> None:
    own = own_tokens(source, target)
    assert own >= 1
    assert (covering(source, target)[own:] > 0).all()


@given(cuts())
def test_a_tokenizer_covers_itself(spans: np.ndarray) -> None:
    assert covering(spans, spans).tolist() == list(range(len(spans)))
    assert own_tokens(spans, spans) == 1


@pytest.fixture(scope="module")
def engines(checkpoint: Callable[[str], Path]) -> tuple[Engine, Engine]:
    return load(checkpoint("gemma3_text")), load(checkpoint("llama"))


def test_the_map_reads_cells_by_character_and_the_targets_own_tokens(
    engines: tuple[Engine, Engine],
) -> None:
    source, target = (read(engine, "tiny", [TEXT])[0] for engine in engines)
    own = know(engines[1], target.ids, 0).states
    inputs = map_inputs(source, target.spans, own)
    rows = covering(source.spans, target.spans)
    assert np.array_equal(inputs["keys.1"], source.cells["keys.1"][rows])
    assert inputs[OWN] is own


def whole(rows: np.ndarray) -> Reduction:
    return Reduction.of(torch.from_numpy(rows), rows.shape[1])


def self_map(of: Read) -> CacheMap:
    """From a model's cells to the same cells, fitted on one text."""
    reduced = {site: whole(cells) for site, cells in of.cells.items()}
    inputs = {site: torch.from_numpy(cells) for site, cells in of.cells.items()}
    x = torch.cat([each(inputs[site]) for site, each in reduced.items()], 1)
    y = torch.cat(list(inputs.values()), 1)
    moments = CacheMoments.of(x, y)
    widths = {site: cells.shape[1] for site, cells in of.cells.items()}
    return fit_caches(moments, moments, reduced, widths, lambdas=(1e-5,)).map


def test_what_a_model_holds_carried_to_itself_is_what_it_holds(
    engines: tuple[Engine, Engine],
) -> None:
    (own,) = read(engines[1], "tiny", [TEXT])
    carried = carry(own, own.spans, np.zeros((len(own.ids), 1)), self_map(own))
    for site, cells in own.cells.items():
        np.testing.assert_allclose(carried[site], cells, rtol=1e-2, atol=1e-2)
    nats = continuation_nll(
        engines[1], own.ids[12:], [own.first(12), {s: c[:12] for s, c in carried.items()}]
    )
    assert nats[1] == pytest.approx(nats[0], abs=1e-2)


@pytest.mark.parametrize("layers", [0, 1])
def test_a_model_receives_its_own_cache(layers: int, engines: tuple[Engine, Engine]) -> None:
    (own,) = read(engines[1], "tiny", [TEXT])
    received = receive(engines[1], "target", TEXT, own, self_map(own), layers)
    assert received.model == "target"
    assert received.ids.tolist() == own.ids.tolist()
    assert received.spans.tolist() == own.spans.tolist()
    for site, cells in own.cells.items():
        np.testing.assert_allclose(received.cells[site], cells, rtol=1e-2, atol=1e-2)
        assert np.allclose(received.cells[site][0], cells[0], atol=1e-5)  # its own
    for site in cell_sites(layers):
        np.testing.assert_allclose(received.cells[site], own.cells[site], atol=1e-5)


def test_the_first_cells_are_the_targets_own() -> None:
    carried = {"keys.0": np.zeros((4, 2))}
    own = {"keys.0": np.ones((1, 2))}
    assert with_own(carried, own)["keys.0"].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


def test_a_cache_of_another_model_is_refused(engines: tuple[Engine, Engine]) -> None:
    (own,) = read(engines[1], "tiny", [TEXT])
    (other,) = read(engines[0], "tiny", [TEXT])
    by = self_map(own)
    with pytest.raises(CacheError, match=r"keys\.0: cells of width \d+, and the map reads \d+"):
        carry(other, own.spans, np.zeros((len(own.ids), 1)), by)
    del own.cells["values.2"]
    with pytest.raises(CacheError, match=r"the map reads values\.2, which the cache does not have"):
        carry(own, own.spans, np.zeros((len(own.ids), 1)), by)
