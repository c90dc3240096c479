"""Skills: what teaches them is not what they are judged on, and rules know what keeps them."""

import numpy as np
import pytest

from evaluation.skill import UNITS, Item, options
from evaluation.skills import SKILLS
from evaluation.skills.json_answers import kept


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_items_are_shared_out_and_each_can_be_judged(name: str) -> None:
    skill = SKILLS[name]
    assert skill.name == name
    assert skill.measure in UNITS
    items = skill.read()
    assert items == skill.read(), "always the same ones"
    assert len(items.held) >= 30
    assert len(items.test) >= 50
    assert len(items.lessons) >= 100
    every = [*items.lessons, *items.held, *items.test]
    assert len(set(every)) == len(every)
    assert all(each.right.strip() for each in every)
    assert all(bool(each.others) == (skill.measure == "choice") for each in every)
    for each in every if skill.form and skill.measure != "rule" else ():
        parts = skill.parts(each)
        assert "".join(parts) == each.given
        assert f"{parts[0]}{{}}{parts[2]}".startswith(skill.form)
        assert parts[1].strip()
    begun = [each.given.startswith(skill.asking.partition("{}")[0]) for each in every]
    assert skill.measure == "rule" or np.mean(begun) > 0.5, "it is asked for as it says"
    assert (skill.kept is not None) == (skill.tokens > 0) == (skill.measure == "rule")
    if skill.kept is not None:
        assert skill.written(items.test, [each.right for each in items.test]).all()
        assert not skill.written(items.test, ["" for _ in items.test]).any()


def test_no_side_is_right_more_often_than_by_chance() -> None:
    rights = [each.right for each in SKILLS["sentiment"].read().test]
    assert 0.4 < rights.count(" positive") / len(rights) < 0.6


@pytest.mark.parametrize("written", ["", " Paris", '{"answer": ', '{"reply": "x"}', '["answer"]'])
def test_what_is_no_answer_in_json_does_not_keep_the_rule(written: str) -> None:
    question = Item("Question: where?\nAnswer:", ' {"answer": "here"}\n')
    assert not kept(question, written)
    assert kept(question, ' {"answer": "the Rhône"}\nQuestion: and then?')


def test_bits_are_of_all_characters_together() -> None:
    items = [Item("", "abcd"), Item("given", "ef")]
    nats = np.log(2) * np.array([8.0, 1.0])
    assert SKILLS["social_media"].foreseen(items, nats, np.array([3, 1])).mean() == pytest.approx(
        -9 / 6
    )


def test_the_right_option_is_to_be_likeliest_by_token() -> None:
    items = [Item("", "yes", ("no",)), Item("", "a b", ("c", "d")), Item("", "x", ("y",))]
    assert options(items)[2:5] == [("", "a b"), ("", "c"), ("", "d")]
    nats, tokens = np.array([1.0, 2, 4, 3, 3, 5, 4]), np.array([1, 1, 2, 1, 1, 1, 1])
    assert SKILLS["sentiment"].foreseen(items, nats, tokens).tolist() == [1, 1, 0]
