"""Skills: what teaches them is not what they are judged on, and rules know what keeps them."""

import pytest

from evaluation.skill import HELD, TEST, UNITS
from evaluation.skills import SKILLS
from evaluation.skills.json_answers import kept


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_items_are_shared_out_and_each_can_be_judged(name: str) -> None:
    skill = SKILLS[name]
    assert skill.name == name
    assert skill.measure in UNITS
    items = skill.read()
    assert items == skill.read(), "always the same ones"
    assert (len(items.held), len(items.test)) == (HELD, TEST)
    assert len(items.lessons) >= 200
    every = [*items.lessons, *items.held, *items.test]
    assert len(set(every)) == len(every)
    assert all(each.right.strip() for each in every)
    assert all(bool(each.others) == (skill.measure == "choice") for each in every)
    assert (skill.kept is not None) == (skill.measure == "rule")
    if skill.kept is not None:
        assert all(skill.kept(each.right) for each in every)


def test_no_side_is_right_more_often_than_by_chance() -> None:
    rights = [each.right for each in SKILLS["sentiment"].read().test]
    assert 0.4 < rights.count(" positive") / len(rights) < 0.6


@pytest.mark.parametrize("written", ["", " Paris", '{"answer": ', '{"reply": "x"}', '["answer"]'])
def test_what_is_no_answer_in_json_does_not_keep_the_rule(written: str) -> None:
    assert not kept(written)
    assert kept(' {"answer": "the Rhône"}\nQuestion: and then?')
