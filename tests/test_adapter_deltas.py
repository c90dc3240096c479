"""An adapter that is carried by the change in the residual stream makes that change there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.adapting import adapting
from actors.anchors import batches
from actors.checkpoints import facts
from actors.engine import load
from actors.matrices import places
from alignment.updates import Update
from benchmarks.adapter_carriers import stream_reader
from benchmarks.adapter_deltas import regressed
from benchmarks.adapters import Model
from tests.conftest import SENTENCES


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "olmo2"])
def test_between_a_model_and_itself_the_stream_changes_as_it_did(
    family: str, checkpoint: Callable[[str], Path]
) -> None:
    model = Model(facts(checkpoint(family), "model"), load(checkpoint(family)))
    torch.manual_seed(0)
    texts = [f"{one} {other}" for one in SENTENCES for other in SENTENCES]
    native = {
        place: Update(0.02 * torch.randn(len(at.rows), 4), 0.1 * torch.randn(4, at.inputs))
        for place, at in places(model.engine).items()
        if place.startswith("down")
    }
    found = regressed(model, model, {"skill": native}, texts, strength=1e-4)
    (shard,) = batches(texts, shard_texts=len(texts), batch_texts=8)
    read, last = stream_reader(model), f"residual.{len(model.engine.blocks) - 1}"

    def stream(updates: dict[str, Update]) -> np.ndarray:
        with adapting(model.engine, updates):
            return np.concatenate([read(batch).points[last] for batch in shard])

    plain, wanted = stream({}), stream(native)
    off = {
        way: float(np.square(stream(of["skill"]) - wanted).sum() / np.square(plain - wanted).sum())
        for way, of in found.items()
    }
    assert off["delta regression"] < 0.05 < off["delta regression, shuffled rows"]
