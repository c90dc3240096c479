"""Run files: what is wrong is said in a line each, before anything heavy is imported."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.site_names import KINDS
from alignment.fitters import FITTERS
from alignment.layers import ROLES
from evaluation.suites import SUITES
from jobs.config import (
    FITTER_NAMES,
    KIND_NAMES,
    ROLE_NAMES,
    ConfigError,
    RunFile,
    read_run_file,
)
from jobs.names import ROOT
from jobs.sections import SUITE_NAMES
from jobs.shorthand import CONCEPT_NAMES

DEMO = ROOT / "configs" / "demo.yaml"
SECTIONS = ("anchors", "similarity", "maps", "steering", "cluster", "tracking")
SIDES = ("positive", "negative")
Edit = Callable[[dict[str, Any]], Any]


def demo() -> dict[str, Any]:
    """The demo's run file, with every section written out."""
    return {name: {} for name in SECTIONS} | yaml.safe_load(DEMO.read_text())


def groups(*names: str) -> dict[str, Any]:
    """A concept's texts by these groups."""
    return {name: {side: {"file": f"{name}.txt"} for side in SIDES} for name in names}


def refusal(directory: Path, content: Any) -> list[str]:
    """The lines that a run file of this content is answered with, without its path."""
    file = directory / "run.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        read_run_file(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda run: run.update(store="s3:/x"),
            "store: 's3:/x': no such kind of store; allowed: a directory, or s3://bucket/prefix",
        ),
        (
            lambda run: run.update(modles=1),
            f"modles: no such key; allowed: {', '.join(RunFile.model_fields)}",
        ),
        (
            lambda run: run["models"][1].update(dtyp="float32"),
            "models.1.dtyp: no such key; allowed: "
            "name, hub, directory, gguf, package, derived, revision, sha256, dtype",
        ),
        (
            lambda run: run["anchors"]["corpora"][0].update(filed="text"),
            "anchors.corpora.0.filed: no such key; allowed: "
            "package, file, hub, revision, field, where, limit, answered",
        ),
        (
            lambda run: run["steering"]["concepts"][0]["positive"].update(lable=1),
            "steering.concepts.0.positive.lable: no such key; allowed: "
            "package, file, hub, revision, field, where, limit, answered",
        ),
        (
            lambda run: run["models"][1].update(dtype="float16"),
            "models.1.dtype: 'float16': 'float32' or 'bfloat16'",
        ),
        (
            lambda run: run["anchors"].update(texts="many"),
            "anchors.texts: 'many': a valid integer, unable to parse string as an integer",
        ),
        (
            lambda run: run["anchors"].update(texts=2),
            "anchors.texts: 2: greater than or equal to 8",
        ),
        (
            lambda run: run.update(lora={"skills": ["python", "cobol"]}),
            "lora.skills.1: 'cobol': no skill of that name; allowed: "
            "json_answers, passage_answers, python, recall, rust, sentiment, social_media",
        ),
        (
            lambda run: run.update(lora={"texts": 3000}),
            "the run: lora.texts: 3000 of the anchors, and anchors.texts is 288",
        ),
        (
            lambda run: run["cluster"].update(in_flight=100),
            "cluster.in_flight: 100: less than or equal to 64",
        ),
        (
            lambda run: run["cluster"].update(ranks={"gemma-3-270m": 0}),
            "cluster.ranks.gemma-3-270m: 0: greater than or equal to 1",
        ),
        (
            lambda run: run["cluster"].update(ranks={"gemma": 2}),
            "the run: cluster.ranks: no model 'gemma'; allowed: "
            "smollm2-135m-instruct, gemma-3-270m",
        ),
        (
            lambda run: run["steering"].update(strengths=[0.1, -1]),
            "steering.strengths.1: -1: greater than 0",
        ),
        (
            lambda run: run["steering"].update(strengths=[0.1, float("inf")]),
            "steering.strengths.1: inf: a finite number",
        ),
        (
            lambda run: run["maps"].update(fitters=["ridge", "rigde"]),
            "maps.fitters.1: 'rigde': no fitter of that name; allowed: " + ", ".join(FITTER_NAMES),
        ),
        (
            lambda run: run["maps"].update(roles=["deep"]),
            "maps.roles.0: 'deep': no role of that name; allowed: "
            "feature_extraction, representation, decision_making",
        ),
        (
            lambda run: run["maps"].update(kinds=["head"]),
            "maps.kinds.0: 'head': no kind of site of that name; allowed: residual, attention, mlp",
        ),
        (
            lambda run: run["steering"]["concepts"][0].update(name="mood"),
            "steering.concepts.0.suite: 'mood': no suite of that name; allowed: "
            + ", ".join(SUITE_NAMES),
        ),
        (
            lambda run: run["models"][1].update(name=run["models"][0]["name"]),
            "the run: two models are named smollm2-135m-instruct; names are distinct",
        ),
        (
            lambda run: run["models"][1].update(hub="maker/model"),
            "models.1: model gemma-3-270m: exactly one of hub, directory, gguf, package, derived "
            "is needed, found hub and package",
        ),
        (lambda run: run["models"][1].pop("name"), "models.1.name: missing"),
        (lambda run: run.pop("models"), "models: missing"),
        (
            lambda run: run["steering"].update(concepts=["refusl"]),
            "steering.concepts: no concept 'refusl'; did you mean refusal? allowed: "
            + ", ".join(CONCEPT_NAMES),
        ),
        (
            lambda run: run["steering"].pop("other"),
            "steering: other: missing; a single concept needs another one as its control",
        ),
        (
            lambda run: run["steering"]["other"].update(name="sentiment"),
            "steering: two concepts are named sentiment; names are distinct",
        ),
        (
            lambda run: run["steering"]["concepts"][0].update(groups=groups("films", "books")),
            "steering.concepts.0: sentiment has groups (books, films) and positive and negative "
            "beside them; either is enough",
        ),
        (
            lambda run: run["steering"]["concepts"][0].pop("negative"),
            "steering.concepts.0: sentiment needs positive and negative, or groups of them",
        ),
        (
            lambda run: run["steering"]["concepts"].append(
                {"name": "refusal", "groups": groups("films")}
            ),
            "steering.concepts.1: refusal has one group, films; at least two",
        ),
        (
            lambda run: run["steering"]["concepts"].append(
                {
                    "name": "refusal",
                    "groups": groups("films")
                    | {"plays": groups("plays")["plays"] | {"postive": 1}},
                }
            ),
            "steering.concepts.1.groups.plays.postive: no such key; allowed: positive, negative",
        ),
    ],
)
def test_a_wrong_key_or_value_is_one_line_with_place_value_and_what_is_allowed(
    tmp_path: Path, edit: Edit, said: str
) -> None:
    run = demo()
    edit(run)
    assert refusal(tmp_path, run) == [said]


def test_every_mistake_has_its_line(tmp_path: Path) -> None:
    run = demo()
    run["seed"], run["maps"] = "one", {"kinds": ["head"], "roles": ["deep"]}
    assert [line.partition(":")[0] for line in refusal(tmp_path, run)] == [
        "seed",
        "maps.kinds.0",
        "maps.roles.0",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: a: b", "not YAML: mapping values are not allowed here"),
        ("models: [a", "not YAML: while parsing a flow sequence"),
        ("- a\n- b\n", "a run file is a mapping; see configs/demo.yaml"),
        ("", "a run file is a mapping; see configs/demo.yaml"),
    ],
)
def test_what_is_no_run_file_at_all(tmp_path: Path, text: str, said: str) -> None:
    lines = refusal(tmp_path, text)
    assert len(lines) == 1
    assert lines[0].startswith(said)


def test_a_file_that_is_not_there_or_not_readable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/none.yaml: no such file$"):
        read_run_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: cannot be read: .*directory"):
        read_run_file(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read: "):
        read_run_file(tmp_path / "binary.yaml")


def sections(node: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every mapping of a run file, but of `where`, whose keys are a corpus's."""
    if isinstance(node, dict):
        yield place
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for step, inner in items:
        if isinstance(inner, dict | list) and step != "where":
            yield from sections(inner, (*place, step))


def keys() -> st.SearchStrategy[str]:
    words = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)
    known = {"name", *(name for place in sections(demo()) for name in section_at(demo(), place))}
    return words.filter(lambda key: key not in known and key not in FIELDS)


def section_at(run: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        run = run[step]
    return run


def fields_of(schema: dict[str, Any]) -> set[str]:
    return {
        name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", {})
    }


FIELDS = fields_of(RunFile.model_json_schema())


@settings(max_examples=60)
@given(place=st.sampled_from(list(sections(demo()))), key=keys())
def test_any_other_key_anywhere_is_refused_with_its_path(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str | int, ...], key: str
) -> None:
    run = demo()
    section_at(run, place)[key] = 1
    lines = refusal(tmp_path_factory.mktemp("run"), run)
    path = ".".join(str(step) for step in (*place, key))
    assert len(lines) == 1
    assert lines[0].startswith(f"{path}: no such key; allowed: ")
    # What is allowed is what the section knows: nothing that is there already is missing from it.
    allowed = lines[0].removeprefix(f"{path}: no such key; allowed: ").split(", ")
    assert set(section_at(demo(), place)) <= set(allowed)


def test_the_demo_is_valid() -> None:
    run = read_run_file(DEMO)
    assert [model.name for model in run.models] == ["smollm2-135m-instruct", "gemma-3-270m"]
    assert all(concept.suite in SUITES for concept in run.steers.concepts)
    assert set(run.maps.fitters) <= set(FITTERS)


def test_a_run_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = read_run_file(DEMO)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(run.model_dump(mode="json", exclude_none=True)))
    assert read_run_file(again) == run


def test_where_results_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = demo()
    monkeypatch.setenv("ISTHMUS_HOME", str(tmp_path / "elsewhere"))
    assert RunFile.model_validate(raw).folder == tmp_path / "elsewhere" / "runs" / "demo"
    own = RunFile.model_validate(raw | {"home": str(tmp_path / "own")})
    assert own.folder == tmp_path / "own" / "runs" / "demo"
    assert own.tracking_uri == f"sqlite:///{tmp_path}/own/mlflow.db"
    assert own.store_location == str(tmp_path / "own" / "store")
    shared = RunFile.model_validate(raw | {"store": "s3://bucket/prefix"})
    assert shared.store_location == "s3://bucket/prefix"
    told = raw | {"tracking": {"uri": "http://tracker:5000"}}
    assert RunFile.model_validate(copy.deepcopy(told)).tracking_uri == "http://tracker:5000"


def test_names_that_a_run_file_may_use_are_what_there_is() -> None:
    assert set(FITTER_NAMES) == set(FITTERS)
    assert set(SUITE_NAMES) == set(SUITES)
    assert set(ROLE_NAMES) == set(ROLES)
    # What a map of the residual stream does not fit, or nothing can be added to, is only read.
    assert set(KIND_NAMES) == set(KINDS) - {"keys", "values", "router"}
    assert all(suite.name == name for name, suite in SUITES.items())
