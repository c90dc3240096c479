"""The command line: what a user can mend ends with one red line and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.names import ROOT

VERBS = ("sweep", "models", "report", "pull", "carry")
DEMO = str(ROOT / "configs" / "demo.yaml")
RED, PLAIN = "\x1b[31m", "\x1b[0m"


def isthmus(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as a user does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refusal(*arguments: str, **environment: str) -> str:
    """The one line that a wrong command is answered with; red where there are colours."""
    ran = isthmus(*arguments, FORCE_COLOR="1", TERM="xterm", **environment)
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    assert ran.stderr.startswith(RED), ran.stderr
    assert ran.stderr.endswith(f"{PLAIN}\n")
    line = ran.stderr.removeprefix(RED).removesuffix(f"{PLAIN}\n")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples_that_name_the_verb(verb: str) -> None:
    ran = isthmus(verb, "--help", COLUMNS="200")
    assert ran.returncode == 0, ran.stderr
    examples = ran.stdout.partition("Examples")[2]
    assert f"isthmus {verb} " in examples
    if verb == "sweep":
        assert "ray job submit --working-dir . -- python -m jobs sweep" in examples


def test_help_of_carrying_a_steering_vector_has_examples() -> None:
    ran = isthmus("carry", "steering", "--help", COLUMNS="200")
    assert ran.returncode == 0, ran.stderr
    assert "isthmus carry steering mine.gguf --from" in ran.stdout.partition("Examples")[2]


def test_help_alone_names_every_verb() -> None:
    # Without a verb there is nothing to do: the same page, and no success.
    for arguments, code in ((["--help"], 0), ([], 2)):
        ran = isthmus(*arguments)
        assert ran.returncode == code
        assert all(f" {verb} " in ran.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", ["sweep", "models"])
def test_a_wrong_run_file(verb: str, tmp_path: Path) -> None:
    assert refusal(verb, str(tmp_path / "none.yaml")) == f"{tmp_path}/none.yaml: no such file"
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(yaml.safe_load(Path(DEMO).read_text()) | {"[bold]": 1}))
    assert refusal(verb, str(run)).startswith(f"{run}: [bold]: no such key; allowed: name, home, ")


def demo_with(directory: Path, **sections: object) -> str:
    """The demo's run file with these sections in place of its own, in a home of its own."""
    run = directory / "run.yaml"
    own = {"home": str(directory / "home"), **sections}
    run.write_text(yaml.safe_dump(yaml.safe_load(Path(DEMO).read_text()) | own))
    return str(run)


def test_a_sweep_without_its_texts_ends_before_anything_is_started(tmp_path: Path) -> None:
    anchors = {"corpora": [{"file": str(tmp_path / "none.txt")}]}
    assert refusal("sweep", demo_with(tmp_path, anchors=anchors)) == (
        f"corpus {tmp_path}/none.txt: there is no file {tmp_path}/none.txt"
    )
    assert not (tmp_path / "home").exists()


def test_models_that_are_not_there(tmp_path: Path) -> None:
    names = ("absent", "gone")
    models = [{"name": name, "directory": str(tmp_path / name)} for name in names]
    told = refusal("models", demo_with(tmp_path, models=models))
    assert told.startswith("model absent: ")
    assert str(tmp_path / "absent") in told


def test_a_report_of_no_matrix(tmp_path: Path) -> None:
    absent = tmp_path / "matrix.json"
    assert refusal("report", str(absent)) == (
        f"{absent}: cannot be read: No such file or directory"
    )
    absent.write_text("{}")
    assert refusal("report", str(absent))
    assert [file.name for file in tmp_path.iterdir()] == ["matrix.json"]


@pytest.mark.parametrize("name", ["a--b--steering--x", "@champion", "a--b--steering--x@", "@"])
def test_a_pull_of_a_name_without_its_alias(tmp_path: Path, name: str) -> None:
    told = refusal("pull", name, "--to", str(tmp_path / "to"))
    assert told.startswith(f"{name!r}: write NAME@ALIAS or NAME@VERSION, for example ")
    assert told.endswith("@champion")


def test_a_pull_of_a_name_or_of_the_best_but_not_of_both(tmp_path: Path) -> None:
    to = ("--to", str(tmp_path / "to"))
    for asked in ((), ("a--b--steering--x@1", "--from", "a")):
        assert refusal("pull", *asked, *to) == (
            "pull: give NAME@ALIAS or NAME@VERSION, or else --from, --into, --cargo, --concept"
        )
    told = refusal("pull", "--from", "a", "--cargo", "lora", *to, ISTHMUS_HOME=str(tmp_path))
    assert told == (
        "nothing with a real native effect is registered of source a, cargo lora in "
        f"sqlite:///{tmp_path}/mlflow.db"
    )


def test_a_pull_from_no_store(tmp_path: Path) -> None:
    to = tmp_path / "to"
    pull = ("pull", "a--b--steering--sentiment@champion", "--to", str(to))
    assert refusal(*pull, ISTHMUS_HOME=str(tmp_path)) == (
        f"no tracking store at {tmp_path}/mlflow.db: run a sweep first"
    )
    assert refusal(*pull, "--uri", "elsewhere") == (
        "tracking store 'elsewhere' is not one of sqlite:///file, http://, https://"
    )
    assert not to.exists()
