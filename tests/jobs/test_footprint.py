"""Bytes on each device: figures that are known from elsewhere, and laws over the whole catalog."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.blueprint import BYTES, Blueprint, blueprint
from actors.fleet import fleet
from jobs.footprint import footprint, weights_per_gpu

GB = 1e9
OPEN = {name: each.blueprint for name, each in fleet().items() if each.weights == "open"}
SPREADS = (1, 2, 4, 8, 16)

dtypes = st.sampled_from(sorted(BYTES))


def blueprints() -> st.SearchStrategy[Blueprint]:
    return st.sampled_from(list(OPEN.values()))


@pytest.mark.parametrize(
    ("name", "gpus", "gigabytes"),
    [
        ("llama-3-70b", 4, 37),
        ("llama-3-70b", 8, 20),
        ("mixtral-8x7b", 1, 93),
        ("mixtral-8x7b", 4, 23.5),
    ],
)
def test_weights_in_bf16_are_what_is_known_of_large_models(
    name: str, gpus: int, gigabytes: float
) -> None:
    assert weights_per_gpu(OPEN[name], gpus) * 2 / GB == pytest.approx(gigabytes, abs=0.6)


def test_the_cache_of_a_long_context_is_what_is_known_of_grouped_queries() -> None:
    # Two tensors, 32 layers, 8 KV heads of 128, two bytes: 128 KiB a token.
    found = footprint(OPEN["llama-3-8b"], dtype="bfloat16", tokens=128_000)
    assert found.cache == 128_000 * 128 * 1024
    assert footprint(OPEN["llama-2-7b"], dtype="float16", tokens=4096).cache == 4096 * 512 * 1024


@given(blueprints(), dtypes, st.integers(1, 100_000), st.integers(1, 64))
def test_one_device_holds_the_whole_model(
    model: Blueprint, dtype: str, tokens: int, rows: int
) -> None:
    found = footprint(model, dtype=dtype, tokens=tokens, rows=rows)
    assert found.weights == model.parameters * BYTES[dtype]
    assert found.cache == model.kv_bytes(tokens, dtype) * rows
    assert found.total == found.weights + found.cache + found.batch
    bare = footprint(model, dtype=dtype, tokens=tokens, rows=rows, keeps_cache=False)
    assert (bare.cache, bare.batch) == (0, found.batch)


@given(blueprints(), dtypes, st.integers(1, 100_000), st.integers(1, 64))
def test_more_devices_never_need_more_each(
    model: Blueprint, dtype: str, tokens: int, rows: int
) -> None:
    spread = [
        footprint(model, dtype=dtype, gpus=gpus, tokens=tokens, rows=rows) for gpus in SPREADS
    ]
    # A tied head is copied before it is divided: of a small model two devices may hold more each.
    for few, many in pairwise(spread[1:] if model.tied else spread):
        assert many.weights <= few.weights
        assert many.cache <= few.cache
        assert many.batch <= few.batch
    for gpus, each in zip(SPREADS, spread, strict=True):
        # Together they hold all of it.
        assert each.weights * gpus >= spread[0].weights
        assert each.cache * gpus >= spread[0].cache


@pytest.mark.parametrize("name", ["gemma-2b", "gemma-3-270m", "llama-3.2-1b", "qwen2.5-3b"])
def test_a_tied_head_is_copied_before_it_is_divided(name: str) -> None:
    config = fleet()[name].config
    assert config is not None
    apart = blueprint(config | {"tie_word_embeddings": False})
    assert OPEN[name].parameters < apart.parameters
    for gpus in SPREADS[1:]:
        assert weights_per_gpu(OPEN[name], gpus) == weights_per_gpu(apart, gpus)


def test_a_kv_head_is_never_split() -> None:
    model = OPEN["llama-3-8b"]
    on = {
        gpus: footprint(model, dtype="bfloat16", gpus=gpus, tokens=1000).cache for gpus in SPREADS
    }
    assert on[8] == on[16] == on[1] // 8
    single = OPEN["gemma-2b"]
    assert footprint(single, dtype="bfloat16", gpus=8, tokens=1000).cache == single.kv_bytes(
        1000, "bfloat16"
    )
