"""Questions on a passage that another model has read, both ways of the demo.

The source reads the passage; the target is asked with what a map makes of the source's cache, and
with nothing but its own first tokens (base), its own cache (native), or another passage's cells.

- extraction: the answer is words of the passage (SQuAD), and the target writes what is likeliest;
  scored as SQuAD does, by the F1 of its words (Rajpurkar et al., arXiv 1606.05250);
- multiple choice: that answer beside answers to like questions on other passages; right where it
  costs least nats per token.

    python -m benchmarks.kv_tasks
"""

import re
import string
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from actors.anchors import text_hash
from actors.cache_folder import CARRIED
from actors.caching import CellsBySite, continuation_nll, fill, read
from actors.encoding import encode
from actors.engine import Engine
from actors.hand_over import ANOTHER, BASE, NATIVE, HandOver, Passage, meet
from alignment.cache_map import CacheMap
from benchmarks.caches import carried_both_ways, retention, run_of_caches
from benchmarks.record import record
from evaluation.retention import paired_bootstrap
from evaluation.skill import documents

ASKED = 120  # questions, each on a passage of its own
LONGEST = 1200  # characters of a passage
CHOICES = 4
WRITTEN = 14  # tokens of an answer
SQUAD = "squad/bpb_5shot"
KINDS = ("how many", "how", "who", "when", "where", "which", "what")
EXTRACTION, CHOICE = "extraction", "multiple choice"


@dataclass(frozen=True)
class Item:
    """A passage, a question on it, all its right answers, and wrong ones that fit the question."""

    passage: str
    question: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def main() -> None:
    """Measure and record."""
    run, _, _ = run_of_caches()
    items = _items()
    crossings: dict[str, dict[str, Any]] = {}
    for name, source, target, by in carried_both_ways(run):
        crossings[name] = _crossing(source, target, by, items)
        print(name, crossings[name], file=sys.stderr)
    record("kv_tasks", {"asked": len(items), "chance": 1 / CHOICES, "crossings": crossings})


def _items() -> list[Item]:
    """By hash, of passages that are short enough. Wrong answers are to questions on other passages:
    of the same article where there are enough, of the same kind, of nearly as many characters."""
    by_passage: dict[str, dict[str, Any]] = {}
    for of in sorted(documents(SQUAD), key=lambda of: text_hash(of["query"])):
        passage, _, question = of["query"].removesuffix("\nAnswer:").partition("\nQuestion:")
        if len(passage) <= LONGEST:
            by_passage.setdefault(passage, of | {"question": question, "kind": _kind(question)})
    found = []
    for passage, of in list(by_passage.items())[:ASKED]:
        others = {
            (
                other["title"] != of["title"],
                other["kind"] != of["kind"],
                abs(len(other["choices"][0]) - len(of["choices"][0])),
                other["choices"][0],
            )
            for other in by_passage.values()
            if other["choices"][0] not in passage
        }
        wrong = tuple(answer for *_, answer in sorted(others)[: CHOICES - 1])
        asked = f"\nQuestion:{of['question']}\nAnswer:"
        found.append(Item(passage, asked, (*of["choices"], *of["answers_text"]), wrong))
    return found


def _kind(question: str) -> str:
    lower = question.lower()
    return next((kind for kind in KINDS if kind in lower), "")


def _crossing(
    source: Engine, target: Engine, by: CacheMap, items: Sequence[Item]
) -> dict[str, Any]:
    """Of each way the mean score of each task, and what of the native gain is kept."""
    scores: dict[str, list[dict[str, float]]] = {EXTRACTION: [], CHOICE: []}
    for item, other in zip(items, (*items[1:], items[0]), strict=True):
        (mine,), (others,) = (read(source, "source", [each.passage]) for each in (item, other))
        asked = Passage(item.passage + item.question, len(item.passage))
        met = meet(target, "target", asked, mine)
        ways = {
            BASE: met.own,
            NATIVE: met.native,
            CARRIED: met.carried(by),
            ANOTHER: met.carried(by, others),
        }
        of_task = [_extraction(target, met, item, ways), _choice(target, met, item, ways)]
        for found, score in zip(scores.values(), of_task, strict=True):
            found.append(score)
        print(len(scores[CHOICE]), of_task, file=sys.stderr)
    return {task: _kept(found) for task, found in scores.items()}


def _kept(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    gains = np.array([[of[NATIVE], of[BASE]] for of in scores])
    return {
        "score": {name: float(np.mean([of[name] for of in scores])) for name in scores[0]},
        "native_gain": asdict(paired_bootstrap(gains, lambda m: m[:, 0] - m[:, 1])),
        "retention": {name: retention(scores, name) for name in (CARRIED, ANOTHER)},
    }


@torch.inference_mode()
def _extraction(
    target: Engine, met: HandOver, item: Item, ways: Mapping[str, CellsBySite]
) -> dict[str, float]:
    """The best F1 of what is written, up to the end of its line, with a right answer."""
    found = {}
    for names in _alike(ways):
        cache = fill(target, [ways[name] for name in names])
        fed, said = torch.from_numpy(met.fed).expand(len(names), -1), []
        for _ in range(WRITTEN):
            fed = target.logits(target.states_after(fed, cache)[:, -1:]).argmax(-1)
            said.append(fed)
        written = target.tokenizer.batch_decode(torch.cat(said, 1), skip_special_tokens=True)
        for name, text in zip(names, written, strict=True):
            line = text.strip().partition("\n")[0]
            found[name] = max(_f1(line, right) for right in item.right)
    return found


def _alike(ways: Mapping[str, CellsBySite]) -> tuple[list[str], ...]:
    """Those that can go side by side: of base fewer tokens are cached than of the others."""
    return [BASE], [name for name in ways if name != BASE]


def _f1(said: str, right: str) -> float:
    one, other = _words(said), _words(right)
    common = (Counter(one) & Counter(other)).total()
    return 2 * common / (len(one) + len(other)) if common else 0.0


def _words(text: str) -> list[str]:
    """In small letters, without punctuation and articles."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _choice(
    target: Engine, met: HandOver, item: Item, ways: Mapping[str, CellsBySite]
) -> dict[str, float]:
    """1 where the right answer is the likeliest one, else 0."""
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for answer in (item.right[0], *item.wrong):
        encoded = encode(target, [f"{item.passage}{item.question} {answer}"])
        fed = encoded.ids[0].numpy()[met.cached :]
        for names in _alike(ways):
            some = [ways[name] for name in names]
            found = continuation_nll(target, fed, some, known=len(met.fed)).tolist()
            for name, cost in zip(names, found, strict=True):
                costs[name].append(cost)
    return {name: float(np.argmin(of) == 0) for name, of in costs.items()}


if __name__ == "__main__":
    main()
