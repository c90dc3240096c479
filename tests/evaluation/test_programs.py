"""HumanEval: the right bodies pass, others do not, whatever they try."""

import pytest

from evaluation.programs import body, passes, problems
from evaluation.sandbox import Limits


def test_all_problems_are_there_and_their_own_solutions_pass() -> None:
    every = problems()
    assert len(every) == len({each.name for each in every}) == 164
    assert [each.name for each in every] != sorted(each.name for each in every)
    assert [each.name for each in every[:50] if not passes(each, each.right)] == []


@pytest.mark.parametrize(
    "written",
    [
        "",
        "    pass\n",
        "    return None\n",
        "    return (\n",
        "    import os; os._exit(0)\n",
        "    import sys; sys.exit()\n",
        "    while True: pass\n",
    ],
)
def test_what_solves_nothing_passes_nothing(written: str) -> None:
    for problem in problems()[:3]:
        assert not passes(problem, written, Limits(seconds=1))


def test_what_comes_after_the_function_is_not_of_it() -> None:
    right = problems()[0].right
    assert body(right) == right
    assert passes(problems()[0], f"{right}\n\nprint(1 / 0)\n\ndef check(candidate): 1 / 0\n")
    assert body(" 1\n\n  # more\n\treturn 2\n# end\n  return 3\n") == " 1\n\n  # more\n\treturn 2\n"
    assert body("    return 1") == "    return 1"
