"""Latents that stand in a text are read as embeddings there, in every family."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.encoding import TextError, encode
from actors.engine import Engine, load
from actors.examples import Example
from actors.latent_reading import foreseen_after, slopes
from actors.reading import prompt_stream, stream

BEFORE = "The ferry"
EXAMPLES = [Example(" at noon, and back.", 8), Example(": sank.", 1), Example(" it is late", 3)]


def rows_of(engine: Engine, text: str) -> np.ndarray:
    """What the model would read of a text, for every example."""
    ids = torch.tensor([engine.tokenizer(text, add_special_tokens=False)["input_ids"]])
    return engine.embeddings(ids).expand(len(EXAMPLES), -1, -1).float().numpy().copy()


def nats(engine: Engine, read: torch.Tensor, example: Example) -> torch.Tensor:
    """By the model itself, of what it reads [1, t, d] and then of an example."""
    out = engine.tokenizer(example.text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor([out["input_ids"]])
    told = engine.model(inputs_embeds=torch.cat([read, engine.embeddings(ids)], 1)).logits.float()
    chances = told[0, read.shape[1] - 1 : -1].log_softmax(-1)
    own = chances.gather(-1, ids[0, :, None])[:, 0]
    judged = torch.tensor([end > example.start for _, end in out["offset_mapping"]])
    return -own[judged].sum()


def before(engine: Engine) -> torch.Tensor:
    return engine.embeddings(torch.tensor([engine.tokenizer(BEFORE)["input_ids"]]))


def test_rows_are_read_where_they_stand(engine: Engine) -> None:
    rows = rows_of(engine, " crosses the strait")
    found, tokens = foreseen_after(engine, BEFORE, EXAMPLES, rows)
    plain, same = foreseen_after(engine, BEFORE, EXAMPLES, None)
    assert tokens.tolist() == same.tolist()
    with torch.no_grad():
        for number, example in enumerate(EXAMPLES):
            first = before(engine)
            with_rows = torch.cat([first, torch.from_numpy(rows[number : number + 1])], 1)
            wanted = nats(engine, with_rows, example)
            assert found[number] == pytest.approx(float(wanted), rel=1e-4)
            assert plain[number] == pytest.approx(float(nats(engine, first, example)), rel=1e-4)


def test_slopes_are_those_of_the_model_itself(engine: Engine) -> None:
    kept = {name: each.clone() for name, each in engine.model.named_parameters()}
    drawn = np.random.default_rng(0).normal(0, 0.3, rows_of(engine, " a b").shape)
    rows = drawn.astype(np.float32)
    found = slopes(engine, BEFORE, EXAMPLES, rows)
    read = torch.from_numpy(rows).requires_grad_()
    wanted = [
        nats(engine, torch.cat([before(engine), read[number : number + 1]], 1), example)
        for number, example in enumerate(EXAMPLES)
    ]
    torch.stack(wanted).sum().backward()
    torch.testing.assert_close(torch.from_numpy(found.slopes), read.grad, atol=1e-4, rtol=1e-3)
    assert found.nats.tolist() == pytest.approx([float(each.detach()) for each in wanted], rel=1e-4)
    for name, each in engine.model.named_parameters():
        assert each.equal(kept[name])
        assert each.grad is None


def test_half_precision_gives_nearly_the_same_slopes(checkpoint: Callable[[str], Path]) -> None:
    whole, half = (load(checkpoint("llama"), dtype) for dtype in ("float32", "bfloat16"))
    rows = np.random.default_rng(0).normal(0, 0.3, rows_of(whole, " a b").shape)
    one, other = (slopes(each, BEFORE, EXAMPLES, rows.astype(np.float32)) for each in (whole, half))
    assert other.slopes.dtype == np.float32
    apart = np.linalg.norm(one.slopes - other.slopes) / np.linalg.norm(one.slopes)
    assert 0 < apart < 0.1
    np.testing.assert_allclose(one.nats, other.nats, rtol=0.05)


def test_every_token_of_a_site_is_read(engine: Engine, sentences: tuple[str, ...]) -> None:
    found = stream(engine, sentences, "residual.1")
    for text, rows in zip(sentences, found, strict=True):
        ids = encode(engine, [text]).ids
        with torch.no_grad():
            wanted = engine.model(ids, output_hidden_states=True).hidden_states[2][0]
        np.testing.assert_allclose(rows, wanted.float().numpy(), atol=1e-4, rtol=1e-3)


def test_a_prompt_is_read_alone(engine: Engine) -> None:
    rows = rows_of(engine, " crosses the strait")[0]
    found = prompt_stream(engine, rows, "residual.1")
    read = torch.from_numpy(rows)[None]
    with torch.no_grad():
        out = engine.model(inputs_embeds=read, output_hidden_states=True)
    np.testing.assert_allclose(found, out.hidden_states[2][0].numpy(), atol=1e-4, rtol=1e-3)


def test_a_text_with_nothing_to_go_by_is_refused_in_a_line(
    checkpoint: Callable[[str], Path],
) -> None:
    engine = load(checkpoint("llama"))
    with pytest.raises(TextError, match="' at once': after latents at least a token") as caught:
        foreseen_after(engine, BEFORE, [Example(" at once", 0)], None)
    assert "\n" not in str(caught.value)
