"""Sweeps as a user runs them: each is a process of its own, watched from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]
import yaml

from actors.weights import facts
from evaluation.matrix import Matrix
from jobs.config import read_run_file
from jobs.names import MATRIX_FILE, ROOT
from jobs.texts import gather
from jobs.work import Work, make_work

TIMED = {"seconds", "native_seconds", "ways", "held_out_r2"}
_OF_ONE_RUN = ("created", "seconds")
PATIENCE = 240  # seconds; a quiet machine needs a tenth of it


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobs", *arguments]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def run_script(script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, to its good end; `more` is added to its environment."""
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def change(run: Path, **sections: Any) -> None:
    """Write other sections into a run file."""
    run.write_text(yaml.safe_dump(yaml.safe_load(run.read_text()) | sections))


class Driver:
    """A sweep that runs, watched from outside: what it says, and the processes it started."""

    def __init__(self, run: Path, **more: str) -> None:
        """`more` is added to its environment."""
        self.log = run.with_name(f"log-{time.monotonic_ns()}.txt")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command("sweep", str(run)),
                cwd=ROOT,
                env=environment(**more),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # What runs the tests may have been started in the background, deaf to SIGINT.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.seen: dict[int, psutil.Process] = {}

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, what: Callable[[], Any], pause: float = 0.005) -> Any:
        """The first answer of `what` that is not empty, while the sweep runs."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := what()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(pause)
        return answer

    def wait_to_hear(self, words: str) -> None:
        self.wait_for(lambda: words in self.said())

    def started(self) -> list[psutil.Process]:
        """Every process of the sweep's Ray that is alive."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                self.seen[process.pid] = process
        return [process for process in self.seen.values() if process.is_running()]

    def doing(self, title: str) -> psutil.Process | None:
        """The process that is in a call of that name, as Ray writes it into its command line."""
        for process in self.started():
            with suppress(psutil.Error):
                if any(part.startswith(f"ray::{title}") for part in process.cmdline()[:1]):
                    return process
        return None

    def stopped(self) -> str:
        """Wait for the end of a sweep that cannot go on; the one line with which it says why."""
        assert self.process.wait(PATIENCE) == 2, self.said()
        *_, last = self.said().splitlines()
        assert "Traceback" not in self.said()
        return last

    def finish(self) -> str:
        """Wait for the end of a sweep that goes well; what it said."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.end()
            code = "no end"
        assert code == 0, f"{code}: {self.said()}"
        return self.said()

    def kill(self) -> None:
        """End the driver as a kernel short of memory does, and clear up what it no longer can."""
        directories = set()
        for process in self.started():
            with suppress(psutil.NoSuchProcess):
                directories |= {
                    Path(part.partition("=")[2])
                    for part in process.cmdline()
                    if part.startswith("--temp-dir=")
                }
        assert len(directories) == 1, directories
        self.process.kill()
        assert self.process.wait(PATIENCE) == -signal.SIGKILL
        self.end()
        for directory in directories:
            shutil.rmtree(directory)

    def end(self) -> None:
        """End what is left of it."""
        self.started()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        left = self.started()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=30)


@dataclass(frozen=True)
class Result:
    """What a sweep left behind."""

    run: Path
    said: str
    blobs: dict[str, bytes]
    matrix: dict[str, Any]

    @classmethod
    def of(cls, run: Path, said: str) -> "Result":
        home = run.parent
        blobs = {file.name: file.read_bytes() for file in (home / "store/blobs").rglob("*/*")}
        matrix = json.loads((home / "runs/tiny/matrix.json").read_text())
        return cls(run, said, blobs, matrix)

    @property
    def numbers(self) -> dict[str, Any]:
        """The matrix without when and how fast it was made, and what is not committed yet."""
        kept = {name: part for name, part in self.matrix.items() if name not in _OF_ONE_RUN}
        lineage = {name: what for name, what in kept["lineage"].items() if name != "commit"}
        cells = [
            {name: part for name, part in cell.items() if name not in _OF_ONE_RUN}
            for cell in kept["cells"]
        ]
        return kept | {"cells": cells, "lineage": lineage}


def assert_same(result: Result, undisturbed: Result) -> None:
    assert sorted(result.blobs) == sorted(undisturbed.blobs)
    unlike = [name for name, blob in result.blobs.items() if blob != undisturbed.blobs[name]]
    assert not unlike
    assert result.numbers == undisturbed.numbers


def matrix_of(run: Path) -> Matrix:
    """What a run has measured."""
    return Matrix.from_json((read_run_file(run).folder / MATRIX_FILE).read_bytes())


def assert_same_cells(one: Matrix, other: Matrix) -> None:
    """But for how long each took; of adapters and of latents no map is fitted: R² is no number."""
    for mine, theirs in zip(one.cells, other.cells, strict=True):
        assert mine.model_dump(exclude=TIMED) == theirs.model_dump(exclude=TIMED)


def work_of(run_file: Path) -> Work:
    """Every unit of a sweep."""
    run = read_run_file(run_file)
    models = {}
    for spec in run.models:
        assert spec.directory is not None
        models[spec.name] = facts(spec.directory, spec.name, spec.dtype)
    return make_work(run, gather(run).anchors, models)


def moments(run_file: Path) -> set[str]:
    """The addresses at which a sweep leaves the moments of its shards."""
    return set(work_of(run_file).moments.values())
