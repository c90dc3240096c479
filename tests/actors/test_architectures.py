"""Where things are, checked against what the models themselves report."""

import pytest
import torch

from actors.architectures import ARCHITECTURES, UnknownArchitecture, architecture_of
from actors.encoding import encode
from actors.engine import Engine
from actors.sites import Site, reading


def test_an_unknown_family_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownArchitecture, match="known are: gemma, gemma2, gemma3_text, llama"):
        architecture_of("gpt2")


def test_every_path_of_every_family_is_there(engine: Engine) -> None:
    architecture = ARCHITECTURES[engine.model.config.model_type]
    for path in (architecture.backbone, architecture.final_norm, architecture.head):
        engine.model.get_submodule(path)
    assert len(engine.blocks) == engine.model.config.num_hidden_layers
    for block in engine.blocks:
        block.get_submodule(architecture.attention)
        block.get_submodule(architecture.mlp)


def test_the_final_norm_stands_between_the_last_block_and_the_head(
    engine: Engine, sentences: tuple[str, ...]
) -> None:
    last = Site("residual", len(engine.blocks) - 1)
    norm = engine.model.get_submodule(engine.architecture.final_norm)
    ids = encode(engine, sentences).ids
    with torch.inference_mode(), reading(engine, [last]) as found:
        states = engine.states(ids)
        assert torch.equal(norm(found[last]), states)


def test_states_and_head_make_the_models_own_logits(
    engine: Engine, sentences: tuple[str, ...]
) -> None:
    ids = encode(engine, sentences[:1]).ids
    with torch.inference_mode():
        expected = engine.model(input_ids=ids).logits
        states = engine.states(ids)
        torch.testing.assert_close(engine.logits(states), expected)
        some = torch.tensor([3, 1, 250])
        torch.testing.assert_close(engine.logits(states, some), expected[..., some])
