"""What is running and how long is left: bars on a terminal, plain lines elsewhere."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alignment.whole_file import whole_file

PLAIN_EVERY_SECONDS = 10.0


class Reporter:
    """Tells a person how a run gets on; one line (or bar) for each stage of it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.seconds: dict[str, float] = {}
        self._kept: Path | None = None

    def go_on(self, file: Path) -> None:
        """Count the seconds of stages on from what earlier calls of a run have left in a file."""
        self._kept = file
        if file.exists():
            for name, seconds in json.loads(file.read_text()).items():
                self._count(name, seconds)

    @contextmanager
    def stage(self, name: str, total: int = 0, done: int = 0) -> Iterator["Stage"]:
        """A stage of `total` steps, of which `done` were there from an earlier run."""
        start = time.monotonic()
        kind = _Bar if self.console.is_terminal else _Lines
        try:
            with kind(self.console, name, total, done) as stage:
                yield stage
        finally:
            self._count(name, time.monotonic() - start)
            if self._kept is not None:
                with whole_file(self._kept) as file:
                    file.write_text(json.dumps(self.seconds, indent=2))

    def _count(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def note(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text)


class Stage:
    """A stage that is under way."""

    def __init__(self, console: Console, name: str, total: int, done: int) -> None:
        self.console, self.name, self.total, self.done = console, name, total, done
        self.start = time.monotonic()
        self.began = self.at = float(done)  # `at` has shares of what is begun

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Put it away."""

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""
        self.done += steps
        self._move(self.done if steps < 0 else max(self.at, self.done))

    def reach(self, at: float) -> None:
        """So many steps are done, with shares of those that are begun."""
        self._move(min(max(self.at, at), self.total))

    def _move(self, at: float) -> None:
        self.at = float(at)


class _Bar(Stage):
    def __enter__(self) -> Stage:
        counted = (MofNCompleteColumn(), TimeRemainingColumn()) if self.total else ()
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            *counted,
            TimeElapsedColumn(),
            console=self.console,
        )
        self._progress.start()
        self._task = self._progress.add_task(
            self.name, total=self.total or None, completed=self.done
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._progress.update(self._task, total=self.done or 1, completed=self.done or 1)
        self._progress.stop()

    def _move(self, at: float) -> None:
        super()._move(at)
        self._progress.update(self._task, completed=self.at)


class _Lines(Stage):
    """For logs: a line at the beginning, one now and then, one at the end."""

    def __enter__(self) -> Stage:
        self._said = self.start
        from_before = f", {self.done} of {self.total} there already" if self.done else ""
        self._print(f"{self.name}{from_before} ...")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._print(f"{self.name}: done in {_clock(time.monotonic() - self.start)}")

    def _move(self, at: float) -> None:
        super()._move(at)
        now, fresh = time.monotonic(), self.at - self.began
        if now - self._said < PLAIN_EVERY_SECONDS or self.done >= self.total or fresh <= 0:
            return  # nothing new to go by, as after a loss
        self._said = now
        left = (now - self.start) / fresh * (self.total - self.at)
        reached = f"{self.at:.1f}".removesuffix(".0")
        self._print(f"{self.name}: {reached} of {self.total}, {_clock(left)} left")

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
