"""What the judges of generated text are made from, and how often they are wrong.

Beside the facts of every judge: the classifier of sentiment on each kind of line when it learnt
from the three others only, as a measure of it on texts unlike those it learnt from; how often the
judge of formality orders the pairs of configs/concepts/formality.jsonl the wrong way; and how long
a judge takes to be ready and to score.

    python -m benchmarks.judges
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.record import record
from evaluation.judge import ErrorRate, Judge, error_rate
from evaluation.judges import JUDGES
from evaluation.labelled import sst2
from evaluation.sentiment_lines import kinds, rate
from evaluation.text_classifier import train

PAIRS = Path(__file__).parents[1] / "configs/concepts/formality.jsonl"


def main() -> None:
    """Measure and record."""
    record(
        "judges",
        {
            "judges": {name: measured(judge) for name, judge in JUDGES.items()},
            "sentiment_classifier_on_kinds_left_out": [asdict(each) for each in left_out()],
            "formality_classifier_on_pairs": asdict(pairs_in_order()),
        },
    )


def measured(judge: Judge) -> dict[str, Any]:
    """The facts of a judge, and its seconds: until it is ready, and then for 872 sentences."""
    texts = [row.text for row in sst2()]
    started = time.perf_counter()
    judge.score(texts[:1])
    ready = time.perf_counter()
    judge.score(texts)
    scored = time.perf_counter()
    seconds = {"ready": round(ready - started, 2), "872 sentences": round(scored - ready, 2)}
    return {**asdict(judge.facts()), "seconds": seconds}


def left_out() -> list[ErrorRate]:
    """Errors on the held-out lines of a kind, learnt from the training lines of the others."""
    rates = []
    for kind, (_, held_out) in kinds().items():
        others = [row for name, (lines, _) in kinds().items() if name != kind for row in lines]
        rates.append(rate(f"{kind}, held out, by people", held_out, train(others).score))
    return rates


def pairs_in_order() -> ErrorRate:
    """How often the formal text of a pair scores no higher than the informal one."""
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    judge = JUDGES["formality_classifier"]
    formal, informal = (
        judge.score([pair[side] for pair in pairs]) for side in ("positive", "negative")
    )
    return error_rate("pairs of the same said both ways", formal - informal, [1] * len(pairs))


if __name__ == "__main__":
    main()
