"""Latents of rows of any width and length, and readers that begin like embeddings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.byte_rows import byte_rows
from alignment.latents import Latents, LatentShape, Reader, Resampler, Spread
from alignment.maps import MapError

DRAWN = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=DRAWN)


def spread(width: int) -> Spread:
    return Spread.of(3 * drawn(50, width) + 1)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 20), st.sampled_from([8, 16]), st.integers(1, 4), st.data()
)
def test_what_fills_up_is_not_looked_at(
    count: int, inputs: int, width: int, texts: int, data: st.DataObject
) -> None:
    shape = LatentShape(inputs, count, width, blocks=1, heads=2)
    resampler = Resampler(shape, spread(inputs)).eval()
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, 7), min_size=texts, max_size=texts)))
    there = torch.arange(7)[None] < lengths[:, None]
    rows = drawn(texts, 7, inputs)
    read = resampler(rows, there)
    assert read.shape == (texts, count, width)
    other = torch.where(there[..., None], rows, 1e4 * drawn(texts, 7, inputs))
    torch.testing.assert_close(resampler(other, there), read)
    for number, length in enumerate(lengths):
        alone = rows[number : number + 1, :length], there[number : number + 1, :length]
        torch.testing.assert_close(resampler(*alone)[0], read[number], atol=1e-5, rtol=1e-4)


def test_rows_are_standardised() -> None:
    """Numbers that are large in every text say no more for it."""
    shape = LatentShape(6, 4, 16, heads=2, dropout=0)
    rows, there = drawn(3, 5, 6), torch.ones(3, 5, dtype=torch.bool)
    torch.manual_seed(0)
    plain = Resampler(shape, Spread(torch.zeros(6), torch.ones(6)))
    scale, shift = 10 ** drawn(6), 100 * drawn(6)
    torch.manual_seed(0)
    scaled = Resampler(shape, Spread(shift, scale))
    torch.testing.assert_close(
        scaled(rows * scale + shift, there), plain(rows, there), atol=1e-3, rtol=1e-3
    )


def test_bytes_that_no_lesson_had_are_read_as_numbers() -> None:
    """Of each byte that lessons lack the spread is none, and a text may have it all the same."""
    lessons = torch.from_numpy(byte_rows("a plain lesson, in letters of ASCII"))
    shape = LatentShape(lessons.shape[1], 4, 16, heads=2)
    resampler = Resampler(shape, Spread.of(lessons)).eval()
    read = [
        resampler(rows[None], torch.ones(1, len(rows), dtype=torch.bool))
        for rows in map(torch.from_numpy, map(byte_rows, ("naïve ½", "na\u2009ve 1", "lesson")))
    ]
    assert all(each.isfinite().all() and each.abs().max() < 10 for each in read)


def test_a_reader_begins_with_the_statistics_of_embeddings() -> None:
    shape = LatentShape(6, 4, 16, heads=2)
    of = Spread(5 + drawn(40), 0.01 + drawn(40).abs())
    with torch.no_grad():
        read = Reader(shape, of)(drawn(64, 4, 16), torch.full((64,), 9)).flatten(0, 1)
    centred = (read - of.mean) / of.deviation
    assert centred.mean().abs() < 0.1
    assert centred.std() == pytest.approx(1, abs=0.1)


def test_a_reader_is_told_the_place_and_the_length() -> None:
    reader = Reader(LatentShape(6, 4, 16, heads=2), spread(40))
    same = drawn(1, 1, 16).expand(2, 4, 16)
    with torch.no_grad():
        one, other = reader(same, torch.tensor([3, 300]))
        torch.testing.assert_close(one, other)
        reader.places.copy_(drawn(4, 16))
        reader.length.copy_(drawn(16))
        one, other = reader(same, torch.tensor([3, 300]))
    assert not torch.allclose(one, other, atol=0.1)
    assert not torch.allclose(one[0], one[1], atol=0.1)


def test_what_is_written_is_read_to_the_bit() -> None:
    made = Latents(LatentShape(6, 4, 16, blocks=2, heads=2), spread(6))
    made.add("smollm2.x", spread(40))
    made.add("gemma-3", spread(24))
    with torch.no_grad():
        for each in made.parameters():
            each += torch.randn_like(each)
    kept = made.to_bytes()
    back = Latents.from_bytes(kept)
    assert back.to_bytes() == kept
    rows, there = drawn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    for name in ("smollm2.x", "gemma-3"):
        read = [each.eval().resampler(rows, there) for each in (made, back)]
        one, other = (
            each.reader(name)(of, torch.tensor([5, 5]))
            for each, of in zip((made, back), read, strict=True)
        )
        assert one.equal(other)


def test_another_file_is_refused() -> None:
    with pytest.raises(MapError, match="holds no latents"):
        Latents.from_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(MapError, match="safetensors"):
        Latents.from_bytes(b"no")
