"""Every text of a run has one use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.anchors import AnchorError, OverlapError, text_hash
from evaluation.suites import SUITES
from jobs.config import RunFile, read_run_file
from jobs.texts import Texts, gather

SUITE = SUITES["sentiment"]
Writer = Callable[..., Path]


def run_with(file: Path, place: str, value: Any) -> RunFile:
    """The run file with one value changed."""
    whole = yaml.safe_load(file.read_text())
    section, (*steps, last) = whole, place.split(".")
    for step in steps:
        section = section[step]
    section[last] = value
    file.write_text(yaml.safe_dump(whole))
    return read_run_file(file)


def uses(texts: Texts) -> dict[str, tuple[str, ...]]:
    return {
        "anchors": tuple(texts.anchors),
        "neutral_dev": texts.neutral_dev,
        "neutral_test": texts.neutral_test,
        "positive": texts.concept.positive,
        "negative": texts.concept.negative,
        "other positive": texts.other.positive,
        "other negative": texts.other.negative,
        "dev": texts.prompts_dev,
        "test": texts.prompts_test,
    }


def test_as_many_texts_as_are_asked_for_and_none_of_them_twice(
    tmp_path: Path, tiny_run: Writer
) -> None:
    run = read_run_file(tiny_run(tmp_path))
    found = uses(gather(run, SUITE))
    assert len(found["anchors"]) == run.anchors.texts
    assert len(found["neutral_dev"]) == len(found["neutral_test"]) == run.steering.neutral_texts
    for side in ("positive", "negative", "other positive", "other negative"):
        assert len(found[side]) == 12
    hashes = [text_hash(text) for texts in found.values() for text in texts]
    assert len(set(hashes)) == len(hashes)


def test_every_opening_is_for_dev_or_for_test(tmp_path: Path, tiny_run: Writer) -> None:
    texts = gather(read_run_file(tiny_run(tmp_path)), SUITE)
    assert sorted((*texts.prompts_dev, *texts.prompts_test)) == sorted(SUITE.prompts)
    assert len(texts.prompts_test) >= len(texts.prompts_dev) >= 10


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES.keys())
def test_every_suite_has_openings_for_dev_and_for_test(
    tmp_path: Path, tiny_run: Writer, suite: Any
) -> None:
    texts = gather(read_run_file(tiny_run(tmp_path)), suite)
    assert len(texts.prompts_dev) >= 10
    assert len(texts.prompts_test) >= 20


def test_texts_do_not_depend_on_the_order_of_a_corpus_or_on_what_else_is_asked(
    tmp_path: Path, tiny_run: Writer, corpora: Path
) -> None:
    plain = gather(read_run_file(tiny_run(tmp_path / "a")), SUITE)
    turned = tmp_path / "turned.txt"
    lines = (corpora / "anchors.txt").read_text().splitlines()
    turned.write_text("\n".join([*lines[::-1], *lines[:50]]))
    file = tiny_run(tmp_path / "b")
    run_with(file, "anchors.corpora", [{"file": str(turned)}])
    assert gather(read_run_file(file), SUITE) == plain
    # Fewer anchors are some of the same ones, and nothing else is touched.
    fewer = gather(run_with(file, "anchors.texts", 100), SUITE)
    assert fewer.anchors == plain.anchors[:100]
    assert uses(fewer) | {"anchors": ()} == uses(plain) | {"anchors": ()}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            "anchors.texts",
            5000,
            r"^anchors\.texts: 5000 texts are asked for, the corpus has \d+$",
        ),
        (
            "steering.neutral_texts",
            500,
            r"^steering\.neutral_texts: 500 texts are asked for, the corpus has \d+$",
        ),
        (
            "steering.concept.texts",
            400,
            r"^steering\.concept\.positive: 400 texts are asked for, the corpus has \d+$",
        ),
    ],
)
def test_too_few_texts_are_counted(
    tmp_path: Path, tiny_run: Writer, place: str, value: int, said: str
) -> None:
    with pytest.raises(AnchorError, match=said):
        gather(run_with(tiny_run(tmp_path), place, value), SUITE)


def test_a_text_with_two_uses_is_named(tmp_path: Path, tiny_run: Writer) -> None:
    file = tiny_run(tmp_path)
    same = yaml.safe_load(file.read_text())["steering"]["concept"]["positive"]
    run = run_with(file, "steering.concept.negative", same)
    with pytest.raises(
        OverlapError, match=r"^splits concept-positive and concept-negative share the text '"
    ):
        gather(run, SUITE)
