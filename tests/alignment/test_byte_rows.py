"""Rows of bytes hold the text, whole and in order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alignment.byte_rows import BYTES, WIDTH, byte_rows


@given(st.text(max_size=60))
def test_the_text_can_be_read_off(text: str) -> None:
    rows = byte_rows(text)
    assert rows.shape == (len(text.encode()), WIDTH)
    assert bytes(rows[:, :BYTES].argmax(1).astype(np.uint8)).decode() == text
    assert (rows[:, :BYTES].sum(1) == 1).all()


def test_no_two_places_are_alike() -> None:
    places = byte_rows("a" * 300)[:, BYTES:]
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
    assert apart.min() > 0.1
