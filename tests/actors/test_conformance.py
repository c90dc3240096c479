"""What every family is held to, on a tiny random model: the model itself is the oracle.

Each test says which column of docs/conformance.md it fills; `python -m benchmarks.conformance` runs
this file and writes that page.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors import module_tree
from actors.encoding import encode
from actors.engine import Engine
from actors.site_names import INJECTED, Site
from actors.sites import Injection, fanning_out, injecting, reading, site_width

Column = Callable[[str], None]


@pytest.fixture
def column(record_property: Callable[[str, object], None], case: str) -> Column:
    """Say which column of the table a test is about."""
    record_property("case", case)
    return lambda name: record_property("column", name)


@pytest.fixture
def ids(engine: Engine, sentences: tuple[str, ...]) -> Tensor:
    """One text, without padding."""
    return encode(engine, sentences[2:3]).ids


def injection(engine: Engine, site: str, strength: float = 3.0, seed: int = 0) -> Injection:
    width = site_width(engine, Site.parse(site))
    vector = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    return Injection(site, vector, strength)


def logits(engine: Engine, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return engine.logits(engine.states(ids))


def read(engine: Engine, ids: Tensor, *sites: str, inject: Injection | None = None) -> list[Tensor]:
    wanted = [Site.parse(site) for site in sites]
    with (
        torch.inference_mode(),
        reading(engine, wanted) as found,
        injecting(engine, [inject] * len(ids)),
    ):
        engine.states(ids)
    return [found[site] for site in wanted]


def stream(engine: Engine, ids: Tensor) -> tuple[Tensor, ...]:
    """What the model reports as its hidden states: before each block, and after the final norm."""
    with torch.inference_mode():
        return engine.model(input_ids=ids, output_hidden_states=True).hidden_states


def cached(engine: Engine, ids: Tensor, kind: str, layer: int) -> Tensor:
    """Keys or values as the model itself keeps them: the last tokens' [b, t', heads, w]."""
    with torch.inference_mode():
        kept = engine.model(input_ids=ids, use_cache=True).past_key_values.layers[layer]
    return (kept.keys if kind == "keys" else kept.values).transpose(1, 2)


def split(engine: Engine, points: Tensor, like: Tensor) -> Tensor:
    """Points [b, t, k * w] as the model keeps them, [b, t', heads, w].

    Some keep a KV head once for each query head that reads it, and most no more tokens than their
    window reaches.
    """
    heads = points.unflatten(-1, (-1, engine.head_width))
    copies = like.shape[2] // heads.shape[2]
    return heads.repeat_interleave(copies, dim=2)[:, -like.shape[1] :]


def test_logits_are_the_models_own(
    engine: Engine, sentences: tuple[str, ...], column: Column
) -> None:
    column("logits")
    ids = encode(engine, sentences[:1]).ids
    with torch.inference_mode():
        expected = engine.model(input_ids=ids).logits
        states = engine.states(ids)
        torch.testing.assert_close(engine.logits(states), expected)
        some = torch.tensor([3, 1, 250])
        torch.testing.assert_close(engine.logits(states, some), expected[..., some])


def test_chances_of_tokens_are_the_models_own(
    engine: Engine,
    sentences: tuple[str, ...],
    column: Column,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    column("logits")
    monkeypatch.setattr(module_tree, "ROWS_A_HEAD", 5)
    monkeypatch.setattr(module_tree, "LOGITS_AT_ONCE", 1000)
    ids = encode(engine, sentences[:1]).ids
    with torch.inference_mode():
        every = engine.model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
        found = engine.log_chances(engine.states(ids)[0, :-1], ids[0, 1:])
    torch.testing.assert_close(found, every.gather(1, ids[0, 1:, None])[:, 0])
    assert engine.log_chances(torch.zeros(0, engine.width), ids[0, :0]).shape == (0,)


def test_padding_on_the_right_does_not_reach_a_row(
    engine: Engine, sentences: tuple[str, ...], column: Column
) -> None:
    column("padding")
    encoded = encode(engine, sentences)
    together = logits(engine, encoded.ids)
    for row, length in enumerate(encoded.lengths):
        alone = logits(engine, encoded.ids[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row, :length], alone, rtol=1e-4, atol=1e-4)


def test_the_residual_stream_is_what_the_model_reports(
    engine: Engine, ids: Tensor, column: Column
) -> None:
    column("residual")
    layers = len(engine.blocks)
    found = read(engine, ids, *(f"residual.{layer}" for layer in range(layers)))
    reported = stream(engine, ids)
    for layer in range(layers - 1):
        assert torch.equal(found[layer], reported[layer + 1])
    norm = engine.model.get_submodule(engine.architecture.final_norm)
    assert torch.equal(norm(found[-1]), reported[-1])
    with torch.inference_mode():
        assert torch.equal(engine.states(ids), reported[-1])


@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_what_the_parts_add_is_what_the_stream_gains(
    engine: Engine, ids: Tensor, column: Column, kind: str
) -> None:
    column(kind)
    for layer in range(len(engine.blocks)):
        before = stream(engine, ids)[layer]
        sites = [f"{part}.{layer}" for part in ("attention", "mlp", "residual")]
        attention, mlp, after = read(engine, ids, *sites)
        torch.testing.assert_close(before + attention + mlp, after)
        # And each is the one it is called: attention mixes values, and comes before or beside.
        if kind == "attention":
            moved = read(engine, ids, sites[0], inject=injection(engine, f"values.{layer}"))[0]
            assert not torch.allclose(moved, attention, atol=1e-2)
        else:
            moved = read(engine, ids, sites[0], inject=injection(engine, sites[1]))[0]
            assert torch.equal(moved, attention)


def test_keys_rotated_again_are_those_of_the_models_cache(
    engine: Engine, ids: Tensor, column: Column
) -> None:
    column("keys")
    for layer in range(len(engine.blocks)):
        own, rotary = cached(engine, ids, "keys", layer), engine.rotary(layer)
        keys = split(engine, read(engine, ids, f"keys.{layer}")[0], own)
        if rotary is None:
            torch.testing.assert_close(keys, own)
            continue
        positions = torch.arange(ids.shape[1])[-own.shape[1] :]
        torch.testing.assert_close(rotary.rotate(keys, positions), own, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rotary.unrotate(own, positions), keys, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(keys, own, atol=1e-2)


def test_values_are_those_of_the_models_cache(engine: Engine, ids: Tensor, column: Column) -> None:
    column("values")
    for layer in range(len(engine.blocks)):
        own = cached(engine, ids, "values", layer)
        assert torch.equal(split(engine, read(engine, ids, f"values.{layer}")[0], own), own)


@pytest.mark.parametrize("kind", ["keys", "values"])
def test_what_is_injected_there_is_what_is_kept(
    engine: Engine, ids: Tensor, column: Column, kind: str
) -> None:
    column("injection")
    added = injection(engine, f"{kind}.1")
    other = "values" if kind == "keys" else "keys"
    with injecting(engine, [added]):
        own, beside = (cached(engine, ids, each, 1) for each in (kind, other))
    assert torch.equal(beside, cached(engine, ids, other, 1))
    rotary = engine.rotary(1)
    if kind == "keys" and rotary is not None:
        own = rotary.unrotate(own, torch.arange(ids.shape[1])[-own.shape[1] :])
    plain = read(engine, ids, f"{kind}.1")[0]
    expected = split(engine, plain + torch.from_numpy(3.0 * added.vector).to(ids.device), own)
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", INJECTED)
@pytest.mark.parametrize("layer", [0, 2])
def test_an_injection_reaches_the_logits_and_is_read_where_it_is_made(
    engine: Engine, ids: Tensor, column: Column, kind: str, layer: int
) -> None:
    column("injection")
    added = injection(engine, f"{kind}.{layer}")
    plain, found = (read(engine, ids, added.site, inject=each)[0] for each in (None, added))
    assert plain.shape == (*ids.shape, len(added.vector))
    torch.testing.assert_close(found, plain + torch.from_numpy(3.0 * added.vector).to(ids.device))
    before = logits(engine, ids)
    with injecting(engine, [added]):
        after = logits(engine, ids)
    # Where keys do not turn, softmax cannot see what is common to them all.
    unseen = kind == "keys" and engine.rotary(layer) is None
    assert torch.allclose(before, after, atol=1e-2) == unseen


def test_an_injection_into_the_stream_is_what_the_blocks_above_start_from(
    engine: Engine, ids: Tensor, column: Column
) -> None:
    column("injection")
    added = injection(engine, "residual.1")
    shift = torch.from_numpy(added.strength * added.vector).to(ids.device)
    with injecting(engine, [added]):
        injected = logits(engine, ids)
    # The same by hand, with the model's own way in: shift what the second block hands on.
    handle = engine.blocks[2].register_forward_pre_hook(
        lambda _module, args, kwargs: ((args[0] + shift, *args[1:]), kwargs), with_kwargs=True
    )
    by_hand = logits(engine, ids)
    handle.remove()
    assert torch.equal(injected, by_hand)


def test_each_row_takes_its_own_injection(
    engine: Engine, sentences: tuple[str, ...], column: Column
) -> None:
    column("injection")
    one = encode(engine, sentences[:1]).ids
    several = [
        injection(engine, "residual.1", 2.0, seed=1),
        None,
        injection(engine, "residual.1", -4.0, seed=2),
        injection(engine, "attention.0", 1.0, seed=3),
        injection(engine, "keys.1", 2.0, seed=4),
        injection(engine, "values.1", 2.0, seed=5),
        injection(engine, "mlp.2", 2.0, seed=6),
    ]
    with injecting(engine, several):
        together = logits(engine, one.repeat(len(several), 1))
    for row, each in enumerate(several):
        with injecting(engine, [each]):
            torch.testing.assert_close(together[row], logits(engine, one)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "sites",
    [
        ["residual.1"],
        ["attention.1"],
        ["mlp.0", "residual.2"],
        ["keys.1", "values.0"],
        ["values.1", "mlp.2"],
    ],
)
def test_fanning_out_is_the_same_as_one_by_one(
    engine: Engine, sentences: tuple[str, ...], column: Column, sites: list[str]
) -> None:
    column("injection")
    ids = encode(engine, sentences[:3]).ids
    several = [injection(engine, site, 2.0, seed) for seed in range(3) for site in sites]
    with fanning_out(engine, several, len(ids)):
        together = logits(engine, ids).unflatten(0, (len(several), len(ids)))
    for number, each in enumerate(several):
        with injecting(engine, [each] * len(ids)):
            torch.testing.assert_close(together[number], logits(engine, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", INJECTED)
def test_strength_0_leaves_logits_bit_identical(
    engine: Engine, sentences: tuple[str, ...], column: Column, kind: str
) -> None:
    column("strength 0")
    ids = encode(engine, sentences[:2]).ids
    nothing, something = (injection(engine, f"{kind}.1", strength) for strength in (0.0, 3.0))
    plain, (point,) = logits(engine, ids), read(engine, ids, nothing.site)
    with injecting(engine, [nothing, None]):
        assert torch.equal(logits(engine, ids), plain)
    with injecting(engine, [something, nothing]):
        mixed, (beside,) = logits(engine, ids), read(engine, ids, nothing.site)
    assert torch.equal(beside[1], point[1])
    assert not torch.equal(beside[0], point[0])
    if hasattr(
        engine.model.config, "num_experts_per_tok"
    ):  # they multiply all rows' tokens at once
        torch.testing.assert_close(mixed[1], plain[1], rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(mixed[1], plain[1])


def test_the_pass_stops_when_all_has_been_read(engine: Engine, ids: Tensor, column: Column) -> None:
    column("residual")
    reached: list[nn.Module] = []
    handles = [
        block.register_forward_pre_hook(lambda module, _: reached.append(module))
        for block in engine.blocks
    ]
    # Blocks differ in what they compute first: some norm their keys after they made the values.
    sites = [Site.parse(site) for site in ("residual.0", "values.1", "keys.1")]
    with torch.inference_mode():
        with reading(engine, sites) as whole:
            engine.states(ids)
        reached.clear()
        with reading(engine, sites, stop=True) as cut:
            engine.states(ids)
            pytest.fail("the pass went on")
    for handle in handles:
        handle.remove()
    assert reached == list(engine.blocks[:2])
    assert all(torch.equal(cut[site], whole[site]) for site in sites)


def test_no_hook_is_left_behind(engine: Engine, ids: Tensor, column: Column) -> None:
    column("injection")

    def hooks() -> int:
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for module in engine.model.modules()
        )

    before, plain = hooks(), logits(engine, ids)
    several = [injection(engine, f"{kind}.1") for kind in INJECTED]

    def fail_inside() -> None:
        with fanning_out(engine, several, 1), reading(engine, [Site("residual", 2)]):
            assert hooks() > before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    with reading(engine, [Site("residual", 0)], stop=True):
        logits(engine, ids)
    assert hooks() == before
    assert torch.equal(logits(engine, ids), plain)
