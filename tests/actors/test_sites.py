"""Reading and injecting, checked against what the models themselves compute."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.encoding import encode
from actors.engine import Engine
from actors.sites import (
    KINDS,
    Injection,
    Site,
    SiteError,
    fanning_out,
    injecting,
    reading,
)


def injection(engine: Engine, site: str, strength: float = 3.0, seed: int = 0) -> Injection:
    vector = np.random.default_rng(seed).standard_normal(engine.width).astype(np.float32)
    return Injection(site, vector, strength)


def hooks(engine: Engine) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in engine.model.modules()
    )


def logits(engine: Engine, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return engine.logits(engine.states(ids))


@pytest.fixture
def ids(engine: Engine, sentences: tuple[str, ...]) -> Tensor:
    """One text, without padding."""
    return encode(engine, sentences[2:3]).ids


@given(st.sampled_from(KINDS), st.integers(0, 999))
def test_a_site_is_written_as_it_is_read(kind: str, layer: int) -> None:
    text = f"{kind}.{layer}"
    assert str(Site.parse(text)) == text


@pytest.mark.parametrize("text", ["", "residual", "residual.", "residual.-1", "mlp.1.2", "head.3"])
def test_what_is_no_site_is_answered_with_what_is(text: str) -> None:
    with pytest.raises(SiteError, match=r"attention, mlp, residual .* residual\.12"):
        Site.parse(text)


def test_sites_are_ordered_as_the_pass_reaches_them() -> None:
    sites = [Site.parse(each) for each in ("residual.1", "attention.2", "mlp.1", "residual.0")]
    assert [str(each) for each in sorted(sites)] == [
        "residual.0",
        "mlp.1",
        "residual.1",
        "attention.2",
    ]


def test_the_residual_stream_is_what_the_model_reports(engine: Engine, ids: Tensor) -> None:
    layers = len(engine.blocks)
    sites = [Site("residual", layer) for layer in range(layers)]
    with torch.inference_mode(), reading(engine, sites) as found:
        reported = engine.model(input_ids=ids, output_hidden_states=True).hidden_states
    for layer in range(layers - 1):
        assert torch.equal(found[sites[layer]], reported[layer + 1])
    norm = engine.model.get_submodule(engine.architecture.final_norm)
    assert torch.equal(norm(found[sites[-1]]), reported[-1])


def test_what_the_parts_add_is_what_the_stream_gains(engine: Engine, ids: Tensor) -> None:
    sites = [Site(kind, layer) for kind in KINDS for layer in range(len(engine.blocks))]
    with torch.inference_mode(), reading(engine, sites) as found:
        engine.states(ids)
    for layer in range(1, len(engine.blocks)):
        attention, mlp, after = (found[Site(kind, layer)] for kind in KINDS)
        before = found[Site("residual", layer - 1)]
        torch.testing.assert_close(before + attention + mlp, after)


def test_the_pass_stops_at_the_highest_site(engine: Engine, ids: Tensor) -> None:
    reached: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: reached.append(layer))
        for layer, block in enumerate(engine.blocks)
    ]
    low, high = Site("residual", 0), Site("attention", 1)
    with torch.inference_mode():
        with reading(engine, [high, low]) as whole:
            engine.states(ids)
        reached.clear()
        with reading(engine, [high, low], stop=True) as cut:
            engine.states(ids)
            pytest.fail("the pass went on")
    for handle in handles:
        handle.remove()
    assert reached == [0, 1]
    assert all(torch.equal(cut[site], whole[site]) for site in (low, high))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 2])
def test_an_injection_reaches_the_logits_and_is_read_where_it_is_made(
    engine: Engine, ids: Tensor, kind: str, layer: int
) -> None:
    added = injection(engine, f"{kind}.{layer}")
    site = Site.parse(added.site)
    with torch.inference_mode(), reading(engine, [site]) as plain:
        engine.states(ids)
    with torch.inference_mode(), reading(engine, [site]) as found, injecting(engine, [added]):
        engine.states(ids)
    expected = plain[site] + torch.from_numpy(added.strength * added.vector)
    torch.testing.assert_close(found[site], expected)
    before = logits(engine, ids)
    with injecting(engine, [added]):
        after = logits(engine, ids)
    assert not torch.allclose(before, after, atol=1e-2)


def test_an_injection_into_the_stream_is_what_the_blocks_above_start_from(
    engine: Engine, ids: Tensor
) -> None:
    added = injection(engine, "residual.1")
    shift = torch.from_numpy(added.strength * added.vector)
    with injecting(engine, [added]):
        injected = logits(engine, ids)
    # The same by hand, with the model's own way in: shift what the second block hands on.
    handle = engine.blocks[2].register_forward_pre_hook(
        lambda _module, args, kwargs: ((args[0] + shift, *args[1:]), kwargs), with_kwargs=True
    )
    by_hand = logits(engine, ids)
    handle.remove()
    assert torch.equal(injected, by_hand)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_leaves_logits_bit_identical(
    engine: Engine, sentences: tuple[str, ...], kind: str
) -> None:
    ids = encode(engine, sentences[:2]).ids
    nothing, something = (injection(engine, f"{kind}.1", strength) for strength in (0.0, 3.0))
    plain = logits(engine, ids)
    with injecting(engine, [nothing, None]):
        assert torch.equal(logits(engine, ids), plain)
    with injecting(engine, [something, nothing]):
        mixed = logits(engine, ids)
    assert torch.equal(mixed[1], plain[1])
    assert not torch.equal(mixed[0], plain[0])


def test_no_hook_is_left_behind(engine: Engine, ids: Tensor) -> None:
    before, plain = hooks(engine), logits(engine, ids)
    added = injection(engine, "mlp.1")

    def fail_inside() -> None:
        with fanning_out(engine, [added, added], 1), reading(engine, [Site("residual", 2)]):
            assert hooks(engine) > before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    with pytest.raises(SiteError), injecting(engine, [added, injection(engine, "mlp.99")]):
        pass
    with reading(engine, [Site("residual", 0)], stop=True):
        logits(engine, ids)
    assert hooks(engine) == before
    assert torch.equal(logits(engine, ids), plain)


def test_each_row_takes_its_own_injection(engine: Engine, sentences: tuple[str, ...]) -> None:
    one = encode(engine, sentences[:1]).ids
    several = [
        injection(engine, "residual.1", 2.0, seed=1),
        None,
        injection(engine, "residual.1", -4.0, seed=2),
        injection(engine, "attention.0", 1.0, seed=3),
    ]
    with injecting(engine, several):
        together = logits(engine, one.repeat(4, 1))
    for row, each in enumerate(several):
        with injecting(engine, [each]):
            torch.testing.assert_close(together[row], logits(engine, one)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sites", [["residual.1"], ["attention.1"], ["mlp.0", "residual.2"]])
def test_fanning_out_is_the_same_as_one_by_one(
    engine: Engine, sentences: tuple[str, ...], sites: list[str]
) -> None:
    ids = encode(engine, sentences[:3]).ids
    several = [injection(engine, site, 2.0, seed) for seed in range(3) for site in sites]
    with fanning_out(engine, several, len(ids)):
        together = logits(engine, ids).unflatten(0, (len(several), len(ids)))
    for number, each in enumerate(several):
        with injecting(engine, [each] * len(ids)):
            torch.testing.assert_close(together[number], logits(engine, ids), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused_in_one_line(engine: Engine, ids: Tensor) -> None:
    beyond = r"residual\.3: this model has layers 0 to 2"
    with pytest.raises(SiteError, match=beyond), reading(engine, [Site("residual", 3)]):
        pass
    narrow = Injection("mlp.1", np.ones(5, dtype=np.float32), 1.0)
    unfit = r"mlp\.1: the vector has 5 numbers, .* has 32"
    with pytest.raises(SiteError, match=unfit), injecting(engine, [narrow]):
        pass
    with pytest.raises(SiteError, match="finite"):
        Injection("mlp.1", np.array([np.nan], dtype=np.float32), 1.0)
    with pytest.raises(SiteError, match="finite"):
        Injection("mlp.1", np.ones(5, dtype=np.float32), float("inf"))
    with (
        injecting(engine, [injection(engine, "mlp.1")] * 2),
        pytest.raises(SiteError, match="2 injections for a batch of 1 rows"),
    ):
        logits(engine, ids)
