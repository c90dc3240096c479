"""What a soft prompt requires is tried on every family, and found missing where it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from actors.engine import Engine, load
from actors.requirements import Requirement, requirements


def found(engine: Engine) -> dict[str, Requirement]:
    return {each.name: each for each in requirements(engine)}


def test_every_family_meets_all(engine: Engine) -> None:
    before = {name: each.clone() for name, each in engine.model.named_parameters()}
    tried = found(engine)
    assert [each.name for each in tried.values() if not each.met] == []
    assert {"inputs_embeds", "frozen", "padding", "special tokens", "embeddings"} < tried.keys()
    for name, each in engine.model.named_parameters():
        assert each.equal(before[name])
        assert each.grad is None


def test_a_model_that_scales_what_it_reads_is_found_out(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(checkpoint("llama"))
    own = engine.model.get_input_embeddings()

    class Scaled(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 460 * own(ids)

    monkeypatch.setattr(engine.model, "get_input_embeddings", Scaled)
    assert not found(engine)["inputs_embeds"].met


def test_a_model_that_learns_is_not_frozen(checkpoint: Callable[[str], Path]) -> None:
    engine = load(checkpoint("llama"))
    engine.model.requires_grad_(True)
    assert not found(engine)["frozen"].met
