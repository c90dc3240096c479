"""Names and numbers as people read them."""

import pytest

from evaluation.wording import count, listed, number, percent, portion, titled, words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "–"), (-0.001, "0.00"), (-0.126, "−0.13"), (1234.5, "1,234.50")],
)
def test_numbers_are_shown_plainly(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_shares_are_shown_as_per_cent() -> None:
    assert percent(0.964) == "96\N{NO-BREAK SPACE}%"
    assert percent(None) == "–"


def test_a_share_that_was_chosen_keeps_its_digits() -> None:
    assert [portion(share) for share in (0.125, 0.5)] == [
        "12.5\N{NO-BREAK SPACE}%",
        "50\N{NO-BREAK SPACE}%",
    ]


def test_names_are_words() -> None:
    assert (words("kv_cache, all"), words("source_code")) == ("KV cache, all", "source code")
    assert (titled("kv_cache"), titled("pad_truncate")) == ("KV cache", "Pad truncate")


def test_few_are_counted_in_words() -> None:
    assert [count(many, "model") for many in (0, 1, 2, 11)] == [
        "No models",
        "One model",
        "Two models",
        "11 models",
    ]
    assert [listed(["a", "b", "c"][:some]) for some in range(4)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
