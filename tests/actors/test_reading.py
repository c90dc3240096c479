"""What is read at the rows, checked text by text against the model's own hidden states."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.anchors import AnchorBatch, rows
from actors.encoding import TextError, encode
from actors.engine import Engine, load
from actors.reading import NotFinite, activations, forward, pooled
from actors.site_names import Site, SiteError
from actors.sites import reading as whole
from actors.sites import site_width

SITES = ("residual.0", "residual.1", "attention.1", "mlp.2")


def test_points_are_the_models_own_states_at_the_rows(engine: Engine, batch: AnchorBatch) -> None:
    read = activations(engine, "f", batch, SITES)
    start = 0
    for number, text in enumerate(batch.texts):
        encoded = encode(engine, [text])
        alone = AnchorBatch(0, 0, (text,))
        row_ids, _, tokens = rows(alone, encoded.spans)
        with torch.inference_mode():
            states = engine.model(input_ids=encoded.ids, output_hidden_states=True).hidden_states
        here = slice(start, start + len(row_ids))
        assert read.rows[here].tolist() == (row_ids + number * 65536).tolist()
        for layer in (0, 1):
            expected = states[layer + 1][0, tokens].numpy()
            np.testing.assert_allclose(
                read.points[f"residual.{layer}"][here], expected, rtol=1e-5, atol=1e-5
            )
        start += len(row_ids)
    assert start == len(read.rows) > 40


def test_keys_and_values_are_read_at_the_rows_too(engine: Engine, batch: AnchorBatch) -> None:
    sites = ("values.2", "keys.2", "residual.1")
    read = activations(engine, "f", batch, sites)
    with torch.inference_mode(), whole(engine, [Site.parse(each) for each in sites]) as found:
        encoded = encode(engine, batch.texts)
        engine.states(encoded.ids)
    _, texts, tokens = rows(batch, encoded.spans)
    for site in sites:
        expected = found[Site.parse(site)][torch.from_numpy(texts), torch.from_numpy(tokens)]
        assert np.array_equal(read.points[site], expected.numpy())
        assert read.points[site].shape[1] == site_width(engine, Site.parse(site))


def test_activations_say_what_they_are_of(engine: Engine, batch: AnchorBatch) -> None:
    read = activations(engine, "fingerprint", batch, SITES)
    assert (read.model, read.batch) == ("fingerprint", batch.id)
    assert list(read.points) == list(SITES)
    assert read.rows.dtype == np.int64
    for points in read.points.values():
        assert points.dtype == np.float32
        assert points.shape == (len(read.rows), engine.width)
        assert points.flags.c_contiguous


def test_padding_changes_nothing(engine: Engine, batch: AnchorBatch) -> None:
    together = activations(engine, "f", batch, SITES)
    long = "A lamp is worth more than a window, and the map more than the frost. " * 3
    padded = AnchorBatch(0, 0, (*batch.texts, long))
    beside = activations(engine, "f", padded, SITES)
    for site in SITES:
        np.testing.assert_allclose(
            beside.points[site][: len(together.rows)], together.points[site], rtol=1e-5, atol=1e-5
        )


def test_the_same_batch_gives_the_same_bits(engine: Engine, batch: AnchorBatch) -> None:
    first, second = (activations(engine, "f", batch, SITES) for _ in range(2))
    assert all(np.array_equal(first.points[site], second.points[site]) for site in SITES)


def test_the_bare_pass_counts_the_tokens_of_the_texts(engine: Engine, batch: AnchorBatch) -> None:
    assert forward(engine, batch) == sum(
        len(engine.tokenizer(text)["input_ids"]) for text in batch.texts
    )


def test_pools_are_means_over_the_rows_of_each_text_from_its_first_word_on(
    engine: Engine, batch: AnchorBatch
) -> None:
    read = activations(engine, "f", batch, SITES)
    first = [number % 3 * 2 for number in range(len(batch.texts))]
    pools = pooled(engine, batch.texts, SITES, first, batch_texts=4)
    text, word = read.rows // 65536, read.rows % 65536
    for site in SITES:
        expected = [
            read.points[site][(text == number) & (word >= first[number])].mean(0)
            for number in range(len(batch.texts))
        ]
        np.testing.assert_allclose(pools[site], expected, rtol=1e-4, atol=1e-4)


def test_a_text_of_one_word_is_pooled_at_its_own_end(
    engine: Engine, sentences: tuple[str, ...]
) -> None:
    pools = pooled(engine, [sentences[0], "Salt"], ("residual.1",), [0, 0])
    with torch.inference_mode():
        ids = encode(engine, ["Salt"]).ids
        states = engine.model(input_ids=ids, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(
        pools["residual.1"][1], states[2][0, -1].numpy(), rtol=1e-5, atol=1e-5
    )


def test_what_cannot_be_read_is_refused(gpt_like: Engine, batch: AnchorBatch) -> None:
    with pytest.raises(TextError, match="empty"):
        activations(gpt_like, "f", AnchorBatch(0, 0, ("",)), SITES)
    with pytest.raises(SiteError, match="layers 0 to 2"):
        activations(gpt_like, "f", batch, ("residual.7",))


def test_numbers_that_are_none_are_named_with_their_place(
    checkpoint: Callable[[str], Path], batch: AnchorBatch
) -> None:
    engine = load(checkpoint("llama"))
    poisoned = engine.blocks[1].get_submodule("mlp.down_proj").get_parameter("weight")
    with torch.no_grad():
        poisoned[3, 5] = torch.inf
    assert activations(engine, "f", batch, ("residual.0",)).points["residual.0"].any()
    said = r"\d+ of \d+ rows are not finite \(NaN or Inf, computed in float32\)\Z"
    with pytest.raises(NotFinite, match=rf"^batch {batch.id}, site mlp\.1: {said}"):
        activations(engine, "f", batch, ("mlp.1", "residual.0"))
    with pytest.raises(NotFinite, match=rf"^the texts from '.*' on, site residual\.2: {said}"):
        pooled(engine, batch.texts, ("residual.2",), [0] * len(batch.texts))
