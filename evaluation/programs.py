"""Functions that a model writes, judged by running their tests (HumanEval, arXiv 2107.03374)."""

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from evaluation.sandbox import Limits, run_program
from evaluation.skill import documents

TASK = "codex_humaneval/gold_bpb_0shot"


@dataclass(frozen=True)
class Problem:
    """A function to write: `start` is a program up to the end of its docstring, `right` a body that
    is right, and `test` a program with `check(function)`, which fails where a body is wrong."""

    name: str
    start: str
    function: str
    right: str
    test: str


@cache
def problems() -> tuple[Problem, ...]:
    """All 164, in the order of their hashes: any first of them are a fair draw."""
    found = (
        Problem(
            each["task_id"],
            each["prompt"],
            each["entry_point"],
            each["canonical_solution"],
            each["test"],
        )
        for each in documents(TASK)
    )
    return tuple(sorted(found, key=lambda each: hashlib.sha256(each.name.encode()).hexdigest()))


def body(written: str) -> str:
    """What belongs to the function of all that was written after its start: up to the first line
    that stands at the margin."""
    return "".join(_indented(written))


def _indented(written: str) -> Iterator[str]:
    for number, line in enumerate(written.splitlines(keepends=True)):
        if number and line.strip() and not line[0].isspace():
            return
        yield line


def passes(problem: Problem, written: str, limits: Limits | None = None) -> bool:
    """Whether the function with this body passes its tests, in a sandbox.

    Raises:
        SandboxError: no program can be run apart from everything else here.
    """
    # The end must be reached: a program that ends by itself before that has passed nothing.
    reached = secrets.token_hex()
    program = "\n".join(
        (
            problem.start + body(written),
            problem.test,
            f"check({problem.function})",
            f"print({reached!r})",
        )
    )
    ran = run_program(program, limits)
    return ran.ending == "done" and ran.said.endswith(f"{reached}\n")
