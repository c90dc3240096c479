"""How sites are named and ordered, and what is refused; conformance is tested apart."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actors.encoding import encode
from actors.engine import Engine
from actors.site_names import INJECTED, KINDS, Site, SiteError
from actors.sites import Injection, injecting, reading, site_width


@pytest.fixture
def ids(gpt_like: Engine, sentences: tuple[str, ...]) -> Tensor:
    """One text, without padding."""
    return encode(gpt_like, sentences[2:3]).ids


def ones(site: str, width: int, strength: float = 1.0) -> Injection:
    return Injection(site, np.ones(width, dtype=np.float32), strength)


@given(st.sampled_from(KINDS), st.integers(0, 999))
def test_a_site_is_written_as_it_is_read(kind: str, layer: int) -> None:
    text = f"{kind}.{layer}"
    assert str(Site.parse(text)) == text


@pytest.mark.parametrize("text", ["", "residual", "residual.", "residual.-1", "mlp.1.2", "head.3"])
def test_what_is_no_site_is_answered_with_what_is(text: str) -> None:
    with pytest.raises(
        SiteError, match=r"keys, values, attention, router, mlp, residual .* residual\.12"
    ):
        Site.parse(text)


def test_sites_are_ordered_as_the_pass_reaches_them() -> None:
    sites = [
        Site.parse(each)
        for each in ("residual.1", "values.2", "attention.2", "mlp.1", "keys.2", "residual.0")
    ]
    assert [str(each) for each in sorted(sites)] == [
        "residual.0",
        "mlp.1",
        "residual.1",
        "keys.2",
        "values.2",
        "attention.2",
    ]


def test_a_site_has_its_own_width(gpt_like: Engine) -> None:
    widths = {kind: site_width(gpt_like, Site.parse(f"{kind}.1")) for kind in INJECTED}
    assert widths == {"keys": 16, "values": 16, "attention": 32, "mlp": 32, "residual": 32}


def test_what_does_not_fit_is_refused_in_one_line(gpt_like: Engine, ids: Tensor) -> None:
    beyond = r"residual\.3: this model has layers 0 to 2"
    with pytest.raises(SiteError, match=beyond), reading(gpt_like, [Site("residual", 3)]):
        pass
    for site, width, right in (("mlp.1", 5, 32), ("keys.1", 32, 16)):
        said = rf"{site}: the vector has {width} numbers, this model has {right} there"
        with pytest.raises(SiteError, match=said), injecting(gpt_like, [ones(site, width)]):
            pass
    with pytest.raises(SiteError, match="finite"):
        Injection("mlp.1", np.array([np.nan], dtype=np.float32), 1.0)
    with pytest.raises(SiteError, match="finite"):
        ones("mlp.1", 5, float("inf"))
    with (
        injecting(gpt_like, [ones("mlp.1", 32)] * 2),
        pytest.raises(SiteError, match="2 injections for a batch of 1 rows"),
    ):
        gpt_like.states(ids)


@pytest.mark.parametrize("kind", ["keys", "values"])
def test_keys_and_values_that_cannot_be_told_are_refused(gpt_like: Engine, kind: str) -> None:
    blind = replace(gpt_like.architecture, keys=None, values=None)
    engine = replace(gpt_like, architecture=blind)
    said = rf"^site {kind}\.1: where a block of llama computes its {kind} is not known\Z"
    refused: list[Callable[[], object]] = [
        lambda: site_width(engine, Site.parse(f"{kind}.1")),
        lambda: reading(engine, [Site.parse(f"{kind}.1")]).__enter__(),
        lambda: injecting(engine, [ones(f"{kind}.1", 16)]).__enter__(),
    ]
    for each in refused:
        with pytest.raises(SiteError, match=said):
            each()
    with pytest.raises(SiteError), injecting(engine, [ones("mlp.1", 32), ones("mlp.99", 32)]):
        pass
    assert not any(module._forward_hooks for module in engine.blocks.modules())
