"""What docs/extend.md shows, done in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.session import ROOMS
from jobs.names import ROOT

PAGE = ROOT / "docs" / "extend.md"
CHANGE = re.compile(
    r"^In `([^`]+)`(?:, after `([^`]+)`)?:\n\n```(?:python|jinja)\n(.*?)```$", re.S | re.M
)
COMMAND = re.compile(r"^```\n(pytest .*)\n```$", re.M)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every change of the page."""
    copy = tmp_path_factory.mktemp("project")
    for part in (*ROOMS, "tests", "configs"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, anchor, code in CHANGE.findall(PAGE.read_text()):
        file = copy / path
        if not anchor:
            assert not file.exists(), f"{path} is there already"
            file.write_text(code)
            continue
        lines = file.read_text().splitlines(keepends=True)
        (at,) = (number for number, line in enumerate(lines) if line.strip() == anchor)
        file.write_text("".join((*lines[: at + 1], code, *lines[at + 1 :])))
    return copy


def test_there_is_a_file_or_an_entry_for_each() -> None:
    paths = [path for path, anchor, _ in CHANGE.findall(PAGE.read_text()) if not anchor]
    assert paths == [
        "alignment/fitters/scaled_ridge.py",
        "evaluation/skills/java.py",
        "evaluation/cargos/words.py",
        "evaluation/cargos/words.html.j2",
        "jobs/cargos/words.py",
        "tests/jobs/test_words.py",
    ]
    assert len(COMMAND.findall(PAGE.read_text())) == 4


@pytest.mark.parametrize("command", COMMAND.findall(PAGE.read_text()))
def test_what_is_added_is_held_to_account(changed: Path, command: str) -> None:
    asked = [sys.executable, "-m", *command.split(), "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(changed)}
    ran = subprocess.run(asked, cwd=changed, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert re.search(r"\d+ passed", ran.stdout)
