"""Carried cells of which a part is put right: that part is the target's own, the rest is as it was.

Shapes: p tokens that are cached, d width of a site.
"""

import numpy as np
import pytest

from actors.cached_text import Read
from actors.hand_over import HandOver, Passage
from actors.mending import PARTS, THIRDS, mended

TOKENS, LAYERS, WIDTH = 7, 5, 3
SITES = [f"{kind}.{layer}" for kind in ("keys", "values") for layer in range(LAYERS)]
SPANS = np.array([[at, at + 1] for at in range(TOKENS)])


@pytest.fixture
def met() -> HandOver:
    """A text of which the source has cut the first two tokens as one."""
    source = np.concatenate([[[0, 2]], SPANS[2:]])
    native = {site: np.ones((TOKENS, WIDTH), np.float32) for site in SITES}
    cells = {site: np.zeros((len(source), WIDTH), np.float32) for site in SITES}
    of = Read("source", np.arange(len(source)), source, cells)
    return HandOver(of, np.arange(TOKENS + 2), SPANS, np.zeros((TOKENS, 2)), {}, native)


@pytest.fixture
def parts(met: HandOver) -> dict[str, dict[str, np.ndarray]]:
    return mended(met, {site: np.zeros((TOKENS, WIDTH), np.float32) for site in SITES})


def right(cells: dict[str, np.ndarray]) -> np.ndarray:
    """Which cells [sites, p] are the target's own; each is so as a whole."""
    stacked = np.stack([cells[site] for site in SITES])
    assert (stacked == stacked[..., :1]).all()
    return stacked[..., 0] == 1


def test_parts_of_a_kind_share_out_all_there_is(parts: dict[str, dict[str, np.ndarray]]) -> None:
    assert tuple(parts) == PARTS
    kinds = (
        ("keys", "values"),
        tuple(f"{third} third of the layers" for third in THIRDS),
        tuple(f"{third} third of the tokens" for third in THIRDS),
        ("tokens that the source cuts otherwise", "tokens that both cut alike"),
    )
    assert sorted(sum(kinds, ())) == sorted(PARTS)
    for kind in kinds:
        assert (np.sum([right(parts[part]) for part in kind], axis=0) == 1).all(), kind


def test_a_part_is_what_its_name_says(parts: dict[str, dict[str, np.ndarray]]) -> None:
    keys = right(parts["keys"])
    assert keys[:LAYERS].all()
    assert not keys[LAYERS:].any()
    last = right(parts["last third of the tokens"])
    assert last.all(0).tolist() == [False] * 5 + [True] * 2
    otherwise = right(parts["tokens that the source cuts otherwise"])
    assert otherwise.all(0).tolist() == [True, True] + [False] * 5


def test_the_end_of_a_text_begins_at_a_word_and_is_judged_by_the_same() -> None:
    whole = Passage("one two three four five", 18)
    half = whole.last(0.5)
    assert half == Passage("three four five", 10)
    assert half.text[half.first :] == whole.text[whole.first :] == " five"
    assert whole.last(1.0) == whole
    assert whole.last(0.01).cached == "four", "never nothing"
