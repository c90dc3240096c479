"""Functions in Python that pass their tests: pass@1 on 50 problems of HumanEval."""

from evaluation.programs import passes, problems
from evaluation.sandbox import prove
from evaluation.skill import Item, Items, Skill, by_hash, documents

LESSONS = 400
FORM = '"""{}"""\n'
TEST, HELD = 50, 30
TASK = "codex_mbpp/gold_bpb_0shot"  # what teaches comes from elsewhere


def _read() -> Items:
    lessons = (
        Item(FORM.format(each["text"]), "\n".join(each["code"].splitlines()) + "\n")
        for each in documents(TASK)
    )
    judged = [Item(each.start, each.right) for each in problems()]
    held = tuple(judged[TEST : TEST + HELD])
    return Items(tuple(by_hash(lessons)[:LESSONS]), held, tuple(judged[:TEST]))


def kept(item: Item, written: str) -> bool:
    """Whether the function that the item begins passes its tests.

    Raises:
        SandboxError: no program can be run apart from everything else here.
    """
    (problem,) = (each for each in problems() if each.start == item.given)
    return passes(problem, written)


PYTHON = Skill("python", "rule", _read, kept, tokens=256, form=FORM, shown=128, ready=prove)
