"""What is said of long work, also where steps are taken back."""

import io
import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from jobs import progress
from jobs.progress import Reporter


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where a stage says every step that it takes."""
    monkeypatch.setattr(progress, "PLAIN_EVERY_SECONDS", 0.0)
    return io.StringIO()


def test_steps_that_are_taken_back_after_a_loss_are_no_error(said: io.StringIO) -> None:
    with Reporter(Console(file=said)).stage("reading", 4) as stage:
        stage.advance(2)
        stage.advance(-stage.done)
        stage.advance()
    lines = said.getvalue().splitlines()
    assert lines[0] == "reading ..."
    assert next(line for line in lines if "of 4" in line).startswith("reading: 2 of 4")
    assert [line for line in lines if "of 4" in line][-1].startswith("reading: 1 of 4")
    assert lines[-1].startswith("reading: done in")


def test_steps_that_are_begun_are_said_and_count_for_what_is_left(said: io.StringIO) -> None:
    with Reporter(Console(file=said)).stage("training", 2) as stage:
        stage.reach(0.5)
        stage.reach(0.25)  # nobody goes back
        stage.advance()
        stage.reach(7.0)
        stage.advance()
    lines = said.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines[1:-1]] == [
        "training: 0.5 of 2",
        "training: 0.5 of 2",
        "training: 1 of 2",
        "training: 2 of 2",
    ]


def test_seconds_are_counted_over_all_calls_of_a_run_also_of_what_was_stopped(
    said: io.StringIO, tmp_path: Path
) -> None:
    file, counted = tmp_path / "run" / "seconds.json", []
    for stopped in (True, False):
        reporter = Reporter(Console(file=said))
        reporter.go_on(file)
        with suppress(KeyboardInterrupt), reporter.stage("reading"):
            time.sleep(0.05)
            if stopped:
                raise KeyboardInterrupt
        counted.append(reporter.seconds)
    assert counted[0]["reading"] >= 0.05
    assert counted[1]["reading"] >= counted[0]["reading"] + 0.05
    assert json.loads(file.read_text()) == counted[1]
