"""Every text of a run has one use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.anchors import AnchorError, OverlapError, text_hash
from evaluation.suites import SUITES
from jobs.config import RunFile, read_run_file
from jobs.shorthand import CONCEPT_NAMES
from jobs.texts import Texts, gather

SUITE = SUITES["sentiment"]
Writer = Callable[..., Path]


def run_with(file: Path, place: str, value: Any) -> RunFile:
    """The run file with one value changed."""
    whole = yaml.safe_load(file.read_text())
    section, (*steps, last) = whole, place.split(".")
    for step in steps:
        section = section[int(step) if step.isdigit() else step]
    section[int(last) if last.isdigit() else last] = value
    file.write_text(yaml.safe_dump(whole))
    return read_run_file(file)


def uses(texts: Texts) -> dict[str, tuple[str, ...]]:
    return {
        "anchors": tuple(texts.anchors),
        "neutral_dev": texts.neutral_dev,
        "neutral_test": texts.neutral_test,
        "positive": texts.sides["sentiment"].positive,
        "negative": texts.sides["sentiment"].negative,
        "other positive": texts.sides["places"].positive,
        "other negative": texts.sides["places"].negative,
        "dev": texts.prompts["sentiment"].dev,
        "test": texts.prompts["sentiment"].test,
    }


def test_as_many_texts_as_are_asked_for_and_none_of_them_twice(
    tmp_path: Path, tiny_run: Writer
) -> None:
    run = read_run_file(tiny_run(tmp_path))
    found = uses(gather(run))
    assert len(found["anchors"]) == run.anchors.texts
    assert len(found["neutral_dev"]) == len(found["neutral_test"]) == run.steers.neutral_texts
    for side in ("positive", "negative", "other positive", "other negative"):
        assert len(found[side]) == 12
    hashes = [text_hash(text) for texts in found.values() for text in texts]
    assert len(set(hashes)) == len(hashes)


def test_every_opening_is_for_dev_or_for_test(tmp_path: Path, tiny_run: Writer) -> None:
    prompts = gather(read_run_file(tiny_run(tmp_path))).prompts["sentiment"]
    assert sorted((*prompts.dev, *prompts.test)) == sorted(SUITE.prompts)
    assert len(prompts.test) >= len(prompts.dev) >= 10


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_openings_for_dev_and_for_test(
    tmp_path: Path, tiny_run: Writer, suite: str
) -> None:
    run = run_with(tiny_run(tmp_path), "steering.concepts.0.suite", suite)
    prompts = gather(run).prompts["sentiment"]
    assert len(prompts.dev) >= 10
    assert len(prompts.test) >= 20


def test_texts_do_not_depend_on_the_order_of_a_corpus_or_on_what_else_is_asked(
    tmp_path: Path, tiny_run: Writer, corpora: Path
) -> None:
    plain = gather(read_run_file(tiny_run(tmp_path / "a")))
    turned = tmp_path / "turned.txt"
    lines = (corpora / "anchors.txt").read_text().splitlines()
    turned.write_text("\n".join([*lines[::-1], *lines[:50]]))
    file = tiny_run(tmp_path / "b")
    run_with(file, "anchors.corpora", [{"file": str(turned)}])
    assert gather(read_run_file(file)) == plain
    # Fewer anchors are some of the same ones, and nothing else is touched.
    fewer = gather(run_with(file, "anchors.texts", 100))
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
            "steering.concepts.0.texts",
            400,
            r"^sentiment\.positive: 400 texts are asked for, the corpus has \d+$",
        ),
    ],
)
def test_too_few_texts_are_counted(
    tmp_path: Path, tiny_run: Writer, place: str, value: int, said: str
) -> None:
    with pytest.raises(AnchorError, match=said):
        gather(run_with(tiny_run(tmp_path), place, value))


def test_a_text_with_two_uses_is_named(tmp_path: Path, tiny_run: Writer) -> None:
    file = tiny_run(tmp_path)
    same = yaml.safe_load(file.read_text())["steering"]["concepts"][0]["positive"]
    run = run_with(file, "steering.concepts.0.negative", same)
    with pytest.raises(
        OverlapError, match=r"^splits sentiment-positive and sentiment-negative share the text '"
    ):
        gather(run)


@pytest.fixture
def of_pairs(tmp_path: Path, tiny_run: Writer) -> Path:
    """A run whose concept has pairs that part at their fourth word, one of them twice."""
    pairs = [
        {"yes": f"Is {n} even? Yes it is.", "no": f"Is {n} even? No, not at all."}
        for n in range(30)
    ]
    records = [json.dumps(pair) for pair in (*pairs, pairs[3])]
    (tmp_path / "pairs.jsonl").write_text("\n".join(records))
    file = tiny_run(tmp_path / "home")
    run_with(file, "steering.concepts.0.paired", True)
    for side, field in (("positive", "yes"), ("negative", "no")):
        spec = {"file": str(tmp_path / "pairs.jsonl"), "field": field}
        run_with(file, f"steering.concepts.0.{side}", spec)
    return file


@pytest.fixture
def of_groups(tmp_path: Path, tiny_run: Writer) -> Path:
    """A run whose concept has pairs of two groups that part at their fourth word."""
    groups: dict[str, Any] = {}
    for group in ("even", "odd"):
        lines = [
            {"yes": f"Is {n} {group}? It is.", "no": f"Is {n} {group}? No."} for n in range(30)
        ]
        file = tmp_path / f"{group}.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        fields = {"positive": "yes", "negative": "no"}
        groups[group] = {side: {"file": str(file), "field": of} for side, of in fields.items()}
    concept = {"name": "sentiment", "texts": 12, "paired": True, "groups": groups}
    file = tiny_run(tmp_path / "home")
    run_with(file, "steering.concepts.0", concept)
    return file


def test_pairs_stay_together_and_count_from_where_they_part(of_pairs: Path) -> None:
    sides = gather(read_run_file(of_pairs)).sides["sentiment"]
    assert len(set(sides.positive)) == 12
    for one, other in zip(sides.positive, sides.negative, strict=True):
        assert one.split()[:3] == other.split()[:3]
    assert sides.first_words == (3,) * 24
    last = gather(run_with(of_pairs, "steering.concepts.0.pool", "last_word"))
    assert last.sides["sentiment"].first_words == (5,) * 12 + (6,) * 12


def test_what_is_no_pair_is_said(of_pairs: Path, corpora: Path) -> None:
    places = {"file": str(corpora / "places.jsonl"), "field": "text"}
    run = run_with(of_pairs, "steering.concepts.0.negative", places)
    with pytest.raises(AnchorError, match=r"^sentiment: 31 positive and \d+ negative texts are no"):
        gather(run)
    run = run_with(of_pairs, "steering.direction", "principal_difference")
    line = "places is not paired, and principal_difference needs pairs; allowed without pairs: diff"
    with pytest.raises(AnchorError, match=line):
        gather(run)


def test_groups_count_alike_and_pairs_stay_in_theirs(of_groups: Path) -> None:
    sides = gather(read_run_file(of_groups)).sides["sentiment"]
    assert sides.groups == ("even",) * 12 + ("odd",) * 12
    for group, one, other in zip(sides.groups, sides.positive, sides.negative, strict=True):
        assert {group in text.split()[2] for text in (one, other)} == {True}
        assert one.split()[:3] == other.split()[:3]
    assert sides.first_words == (3,) * 48
    assert gather(read_run_file(of_groups)).sides["places"].groups == ()
    apart = gather(run_with(of_groups, "steering.concepts.0.paired", False)).sides["sentiment"]
    assert apart.groups == sides.groups
    assert apart.first_words == (0,) * 48
    for group, one, other in zip(apart.groups, apart.positive, apart.negative, strict=True):
        assert {group in text.split()[2] for text in (one, other)} == {True}


def test_a_group_with_too_few_texts_or_those_of_another_is_named(of_groups: Path) -> None:
    few = r"^sentiment\.even, pairs: 40 texts are asked for, the corpus has 30$"
    with pytest.raises(AnchorError, match=few):
        gather(run_with(of_groups, "steering.concepts.0.texts", 40))
    run_with(of_groups, "steering.concepts.0.texts", 12)
    even = yaml.safe_load(of_groups.read_text())["steering"]["concepts"][0]["groups"]["even"]
    run = run_with(of_groups, "steering.concepts.0.groups.odd", even)
    shared = r"^splits sentiment\.even-positive and sentiment\.odd-positive share the text '"
    with pytest.raises(OverlapError, match=shared):
        gather(run)


@pytest.mark.parametrize("name", CONCEPT_NAMES)
def test_every_concept_of_the_house_has_its_texts(
    tmp_path: Path, tiny_run: Writer, name: str
) -> None:
    run = run_with(tiny_run(tmp_path), "steering.concepts", [name])
    texts = gather(run)
    (concept,) = run.steers.concepts
    assert concept.suite == name
    sides = texts.sides[name]
    assert len(set(sides.positive)) == len(set(sides.negative)) == concept.texts >= 64
    assert texts.prompts[name].samples == SUITES[name].samples
