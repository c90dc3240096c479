"""Labelled texts: what they are, and that no judge is measured on what it learnt from."""

from hypothesis import given
from hypothesis import strategies as st

from evaluation.labelled import (
    Labelled,
    editorial_lines,
    movie_lines,
    parted,
    product_lines,
    replies,
    sst2,
    tweets,
    without,
)
from evaluation.sentiment_lines import CLEAR, kinds, training


def row(text: str, group: str = "") -> Labelled:
    return Labelled(text, 1.0, group)


def test_every_source_is_read_whole() -> None:
    scored = movie_lines(), product_lines(), editorial_lines(), tweets()
    assert [len(rows) for rows in scored] == [10_605, 3_708, 5_190, 4_200]
    assert all(each.text and abs(each.label) <= 4 for rows in scored for each in rows)
    assert [len(sst2()), len(replies())] == [872, 169]
    assert {each.label for each in sst2()} == {-1.0, 1.0}
    assert sum(each.refused for each in replies()) == 109


def test_valence_is_of_the_text_beside_it() -> None:
    found = {each.text: each.label for each in movie_lines()}
    assert found["Effective but too tepid biopic"] == -0.6


@given(groups=st.lists(st.text(max_size=3), max_size=30))
def test_a_group_is_never_parted(groups: list[str]) -> None:
    rows = [row(str(number), group) for number, group in enumerate(groups)]
    learnt, held_out = parted(rows)
    assert sorted(map(repr, learnt + held_out)) == sorted(map(repr, rows))
    assert not {each.group for each in learnt} & {each.group for each in held_out}


def test_what_is_shared_is_left_out_however_it_is_written() -> None:
    others = [row("it 's a charming and often affecting journey .")]
    shared = row("Well, it's a charming, and often affecting, journey!")
    kept = row("A charming and often moving journey.")
    assert without([shared, kept], others) == [kept]


def test_sentiment_is_learnt_from_clear_lines_that_share_nothing_with_sst2() -> None:
    assert without(training(), sst2()) == training()
    assert all(abs(each.label) >= CLEAR for each in training())
    learnt = {each.group for each in training()}
    for lines, held_out in kinds().values():
        assert 0.15 < len(held_out) / (len(lines) + len(held_out)) < 0.25
        assert not learnt & {each.group for each in held_out}
