"""Tokens of a carried cache that the target computes itself, wherever they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.cached_text import Read
from actors.caching import CacheError, cell_sites, read, reread
from actors.engine import Engine, load
from actors.patching import patch

TEXT = "She reads the old map slowly, and then folds it away again. Rain fell on the tin roof."
ROTARY = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2")


@pytest.fixture(scope="module", params=ROTARY)
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Engine:
    return load(checkpoint(request.param))


@pytest.fixture(scope="module")
def own(engine: Engine) -> Read:
    (found,) = read(engine, "tiny", [TEXT])
    return found


def wrong(of: Read, seed: int = 0) -> dict[str, np.ndarray]:
    """Cells that are not the model's own, but for the first."""
    draw = np.random.default_rng(seed)
    noise = {site: draw.standard_normal(cells.shape) for site, cells in of.cells.items()}
    for each in noise.values():
        each[0] = 0
    return {site: (cells + noise[site]).astype(np.float32) for site, cells in of.cells.items()}


def test_all_tokens_but_the_first_are_the_native_cache(engine: Engine, own: Read) -> None:
    found = patch(engine, own.ids, wrong(own), range(1, len(own.ids)))
    for site, cells in own.cells.items():
        np.testing.assert_allclose(found[site], cells, atol=2e-4)


def test_the_last_tokens_are_those_read_again_after_the_others(engine: Engine, own: Read) -> None:
    cells, half = wrong(own), len(own.ids) // 2
    found = patch(engine, own.ids, cells, range(half, len(own.ids)))
    expected = reread(engine, own.ids, {site: of[:half] for site, of in cells.items()})
    for site in own.cells:
        np.testing.assert_allclose(found[site], expected[site], atol=2e-4)


def test_tokens_in_between_see_what_is_cached_before_them_and_nothing_after(
    engine: Engine, own: Read
) -> None:
    cells, chosen = wrong(own), [3, 4, 9]
    found = patch(engine, own.ids, cells, chosen)
    for site, of in found.items():
        kept = [at for at in range(len(own.ids)) if at not in chosen]
        assert np.array_equal(of[kept], cells[site][kept])
    # A token by itself is the next one after those before it; a later change changes nothing.
    later = {site: np.concatenate((of[:9], wrong(own, 1)[site][9:])) for site, of in cells.items()}
    for site, of in patch(engine, own.ids, later, chosen).items():
        np.testing.assert_allclose(of[[3, 4]], found[site][[3, 4]], atol=2e-4)
    first = reread(engine, own.ids[:5], {site: of[:3] for site, of in cells.items()})
    for site in own.cells:
        np.testing.assert_allclose(found[site][[3, 4]], first[site][[3, 4]], atol=2e-4)


def test_no_token_changes_nothing(engine: Engine, own: Read) -> None:
    cells = wrong(own)
    found = patch(engine, own.ids, cells, [])
    assert found.keys() == set(cell_sites(len(engine.blocks)))
    assert all(np.array_equal(found[site], cells[site]) for site in found)


@pytest.mark.parametrize("case", ["bloom", "gpt2"])
def test_a_model_that_counts_positions_otherwise_is_refused(
    case: str, checkpoint: Callable[[str], Path]
) -> None:
    engine = load(checkpoint(case))
    (of,) = read(engine, "tiny", [TEXT])
    with pytest.raises(CacheError, match="only models with rotary embeddings"):
        patch(engine, of.ids, of.cells, [3])
