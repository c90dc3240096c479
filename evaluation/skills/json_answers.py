"""Answers to questions as a JSON object with one key, `answer`."""

import json

from evaluation.skill import Item, Items, Skill, documents

LESSONS = 600
FORM = "Question: {}\nAnswer:"
TASK = "squad/bpb_5shot"


def _read() -> Items:
    """Questions without their passages: what is answered does not matter, how it is does."""
    items = (
        Item(FORM.format(_question(each["query"])), f" {_as_json(each['choices'][0])}\n")
        for each in documents(TASK)
    )
    return Items.parted(items, LESSONS)


def _question(query: str) -> str:
    return query.removesuffix("\nAnswer:").rpartition("\nQuestion: ")[2]


def _as_json(answer: str) -> str:
    return json.dumps({"answer": answer}, ensure_ascii=False)


def kept(_: Item, written: str) -> bool:
    """Whether the first line is such an object."""
    try:
        found = json.loads(written.strip().partition("\n")[0])
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == ["answer"]


JSON_ANSWERS = Skill("json_answers", "rule", _read, kept, tokens=32, form=FORM, shown=16)
