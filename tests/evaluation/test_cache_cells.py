"""The cell of a cache beside the numbers it was planted with."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest

from actors.cache_folder import CARRIED as CARRIED_MAP
from actors.cache_folder import SHUFFLED
from actors.cache_folder import TOKENS as TOKENS_MAP
from actors.hand_over import ANOTHER, MEAN
from actors.hand_over import BASE as BASE_HANDED
from actors.hand_over import NATIVE as NATIVE_HANDED
from actors.hand_over import again as again_name
from actors.mending import right
from evaluation.cargos.kv_cache import (
    BASE,
    CARRIED,
    CONTROLS,
    NATIVE,
    TOKENS,
    CacheCell,
    Nats,
    cache_cell,
)
from evaluation.retention import Level, RetentionError

AGAIN = {share: again_name(share) for share in (0.125, 0.25, 0.5)}
# What is planted: the share of the native gain that each gives.
MENDED = {"keys": right("keys"), "values": right("values")}
SHORTER = {0.25: 0.9, 0.5: 0.8}
SHARES = {
    CARRIED: 0.6,
    **dict(zip(MENDED.values(), (0.9, 0.5), strict=True)),
    TOKENS: 0.2,
    **dict(zip(CONTROLS, (0.0, -0.4, -0.1), strict=True)),
    "small": 0.5,
    **dict(zip(AGAIN.values(), (0.7, 0.8, 0.9), strict=True)),
}
HEADS = {"learned": 0.4, "split": 0.3}
GAINS = {"prose": 0.5, "code": 0.25}


def planted(texts: int = 12, gains: dict[str, float] = GAINS) -> dict[str, list[Nats]]:
    """Texts that differ in how hard they are, and a little in what is gained."""
    rng = np.random.default_rng(0)
    nats: dict[str, list[Nats]] = {name: [] for name in gains}
    for (name, gain), _ in product(gains.items(), range(texts)):
        base, gained = 3.0 + rng.normal(0, 0.4), gain + rng.normal(0, 0.03)
        shares = {BASE: 0.0, NATIVE: 1.0, **SHARES}
        nats[name].append({key: base - share * gained for key, share in shares.items()})
    return nats


def shorter(share: float, kept: float) -> list[Nats]:
    """Texts of which that share is cached: so much less is gained, and that much of it kept."""
    (texts,) = planted(gains={"all": share * 0.5}).values()
    return [{**of, CARRIED: of[BASE] - kept * (of[BASE] - of[NATIVE])} for of in texts]


def made(nats: Mapping[str, Sequence[Nats]]) -> CacheCell:
    parts = {share: shorter(share, kept) for share, kept in SHORTER.items()}
    return cache_cell(
        "a", "b", nats, AGAIN, {"small": 5_000}, parts, MENDED, way="ridge", held_out_r2=0.4,
        heads=HEADS, map_bytes=1_000, map_address="e1" * 32, cached_characters=500,
        judged_characters=300, draws=400, seed=0,
    )  # fmt: skip


def test_what_was_planted_is_found() -> None:
    cell = made(planted())
    assert cell.key == ("a", "b", "kv_cache", "continuation")
    assert cell.is_real
    assert cell.retention is not None
    assert cell.retention.value == pytest.approx(0.6)
    assert cell.level is Level.POOR
    assert cell.native.value < cell.carried.value < cell.base.value, "less is better"
    assert cell.tokens is not None
    assert cell.tokens.value == pytest.approx(0.2)
    kept = {control.name: control.retention.value for control in cell.controls}
    assert kept == pytest.approx({name: SHARES[name] for name in CONTROLS}, abs=1e-9)
    assert cell.worst_control == pytest.approx(0.4)
    found = {each.share: each.retention.value for each in cell.again if each.retention}
    assert found == pytest.approx({share: SHARES[name] for share, name in AGAIN.items()})
    assert [(each.name, each.texts) for each in cell.contents] == [("prose", 12), ("code", 12)]
    for each in cell.contents:
        assert each.gain == pytest.approx(GAINS[each.name], abs=0.03)
        assert each.retention is not None
        assert each.retention.value == pytest.approx(0.6)
    assert cell.heads == HEADS
    (small,) = cell.small
    assert (small.name, small.map_bytes) == ("small", 5_000)
    assert small.retention is not None
    assert small.retention.value == pytest.approx(0.5)
    assert [each.characters for each in cell.lengths] == [125, 250, 500]
    for each, kept in zip(cell.lengths, (0.9, 0.8, 0.6), strict=True):
        assert each.retention is not None
        assert each.retention.value == pytest.approx(kept)
    gains = [each.gain for each in cell.lengths]
    assert gains == pytest.approx([0.125, 0.25, 0.375], abs=0.03)
    back = {each.part: each.given_back.value for each in cell.losses if each.given_back}
    assert back == pytest.approx({"keys": 0.75, "values": -0.25}), "of the 0.4 that are lost"
    assert (cell.texts, cell.cached_characters, cell.judged_characters) == (24, 500, 300)


def test_intervals_are_paired_and_always_the_same() -> None:
    noisy = {
        name: [
            {**of, CARRIED: of[CARRIED] + wobble} for of, wobble in zip(texts, noise, strict=True)
        ]
        for (name, texts), noise in zip(
            planted().items(), np.random.default_rng(1).normal(0, 0.02, (2, 12)), strict=True
        )
    }
    cell = made(noisy)
    assert cell == made(noisy)
    assert cell.retention is not None
    assert 0 < cell.retention.high - cell.retention.low < 0.1, "texts differ by far more than that"


def test_without_a_native_gain_nothing_is_claimed() -> None:
    cell = made(planted(gains={"noise": 0.0}))
    assert not cell.is_real
    assert (cell.retention, cell.tokens, cell.level) == (None, None, Level.UNDEFINED)
    assert (cell.controls, cell.worst_control) == ((), None)
    assert {each.retention for each in (*cell.again, *cell.contents)} == {None}


def test_a_kind_needs_two_texts() -> None:
    with pytest.raises(RetentionError, match="at least 2 items, and there are 1"):
        made({"prose": planted()["prose"], "code": planted(texts=1)["code"]})


def test_names_are_those_that_a_host_answers_with() -> None:
    assert (BASE, NATIVE, CARRIED) == (BASE_HANDED, NATIVE_HANDED, CARRIED_MAP)
    assert (TOKENS, CONTROLS) == (TOKENS_MAP, (SHUFFLED, ANOTHER, MEAN))
