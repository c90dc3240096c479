"""The texts that caches are read of: enough of each kind, cut alike, and none in two uses."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.anchors import AnchorError
from jobs.passages import passages
from jobs.sections import Caches

WORDS = "the ferry crosses a narrow strait twice every day and nobody counts who is on it"


def corpus(path: Path, texts: list[str]) -> dict[str, Any]:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return {"file": str(path), "field": "text"}


def section(content: dict[str, Any], **more: Any) -> Caches:
    sizes = {"cached": 60, "judged": 40, "texts": 8, "held": 2, "test": 2}
    return Caches.model_validate({"content": content, **sizes, **more})


@pytest.fixture
def tales(tmp_path: Path) -> dict[str, Any]:
    return corpus(tmp_path / "tales.jsonl", [f"{number}: {WORDS} {WORDS}" for number in range(12)])


def test_every_text_has_one_use_and_one_length(tales: dict[str, Any]) -> None:
    found = passages(section({"tales": tales}), 0)
    test = [each.text for each in found.test["tales"]]
    assert (len(found.fitted), len(found.held), len(test)) == (8, 2, 2)
    assert len({*found.fitted, *found.held, *test}) == 12
    assert {len(text) for text in (*found.fitted, *found.held, *test)} == {100}
    for each in found.test["tales"]:
        assert each.first >= 60
        assert each.text[each.first] == " "
    assert passages(section({"tales": tales}), 0) == found
    assert passages(section({"tales": tales}), 1) != found


def test_texts_are_joined_and_those_too_short_left_out(tmp_path: Path) -> None:
    short = corpus(tmp_path / "short.jsonl", [f"{number}: {WORDS}" for number in range(24)])
    found = passages(section({"short": short | {"joined": 2}}), 0)
    assert all("\n\n" in text for text in found.fitted)
    with pytest.raises(
        AnchorError, match=r"^kv_cache\.content\.short: 12 texts of 100 char.*are 0$"
    ):
        passages(section({"short": short}), 0)


def test_questions_on_one_passage_count_as_one_text(tmp_path: Path) -> None:
    asked = [f"{number} {WORDS} {WORDS} Question {q}" for number in range(12) for q in range(3)]
    found = passages(section({"asked": corpus(tmp_path / "asked.jsonl", asked)}), 0)
    starts = [text[:40] for text in (*found.fitted, *found.held)]
    starts += [each.text[:40] for each in found.test["asked"]]
    assert len(set(starts)) == len(starts)


def test_kinds_that_share_a_text_are_refused(tales: dict[str, Any]) -> None:
    with pytest.raises(AnchorError, match="share the text"):
        passages(section({"tales": tales, "again": tales}, held=2), 0)
