"""What of a soft prompt survives a map between embeddings, with nothing trained.

A prompt is tuned in each model by the same lessons. Carried, it is judged on test items against the
target's own. Held items choose the fitter; controls are a map of shuffled tokens, the mean row of
the carried prompt in place of each, and no prompt but as many rows of zeros.

    python -m benchmarks.prompt_floor
"""

import sys
from contextlib import nullcontext
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.examples import Example, foreseen
from actors.learning import Taken
from actors.prompt_training import PromptTraining, train_prompt
from actors.prompting import prompting
from actors.reading import embeddings
from actors.vocabularies import shared_tokens, token_ids
from actors.weights import default_cache, prepare
from benchmarks.adapters import Figures, Model, Run
from benchmarks.record import record
from evaluation.retention import measure_retention
from evaluation.skill import Item, options
from evaluation.skills import SKILLS
from jobs.carry_prompt import map_rows

SKILL, LESSONS, HELD = "sentiment", 400, 60
WAYS = ("ridge", "relative", "reduced_rank", "pca")
TRAINING = PromptTraining(count=16, epochs=2)


def main() -> None:
    """Measure and record."""
    run = Run.read()
    directions: Figures = {}
    tuned: dict[str, Taken[Tensor]] = {}
    for name, source, target in run.directions():
        for each in (source, target):
            if each.facts.name not in tuned:
                tuned[each.facts.name] = _tuned(run, each)
        directions[name] = _crossing(run, source, target, tuned)
        print(name, directions[name], file=sys.stderr)
        native = {
            name: {"held_out": each.held_out, "tokens": each.tokens, "seconds": each.seconds}
            for name, each in tuned.items()
        }
        record(
            "prompt_floor",
            {
                "skill": SKILL,
                "lessons": LESSONS,
                "training": asdict(TRAINING),
                "native": native,
                "directions": directions,
            },
        )


def _tuned(run: Run, model: Model) -> Taken[Tensor]:
    items = run.texts.items[SKILL]
    lessons, held = items.lessons[:LESSONS], items.held[:HELD]
    return train_prompt(model.engine, _examples(lessons), _examples(held), TRAINING)


def _examples(items: tuple[Item, ...]) -> list[Example]:
    return [Example(each.given + each.right, len(each.given)) for each in items]


def _crossing(
    run: Run, source: Model, target: Model, tuned: dict[str, Taken[Tensor]]
) -> dict[str, object]:
    items = run.texts.items[SKILL]
    mine, own = (tuned[each.facts.name].best for each in (source, target))
    here, there = _shared(run, source, target)
    mixed = there[torch.randperm(len(there), generator=torch.Generator().manual_seed(0))]
    made = {way: map_rows(way, mine, here, there, 0).rows for way in WAYS}
    held = {
        way: float(_scores(target, items.held[:HELD], rows).mean()) for way, rows in made.items()
    }
    best = max(held, key=lambda way: held[way])
    made["shuffled tokens"] = map_rows(best, mine, here, mixed, 0).rows
    made["mean row"] = made[best].mean(0, keepdim=True).expand_as(made[best])
    made["zero"] = torch.zeros_like(made[best])
    base, native = (_scores(target, items.test, rows) for rows in (None, own))
    found: Figures = {}
    for way, rows in made.items():
        kept = measure_retention(base, native, _scores(target, items.test, rows)).retention
        found[way] = None if kept is None else asdict(kept)
    level = {"base": float(base.mean()), "native": float(native.mean())}
    return {"shared_tokens": len(here), "chosen": best, **level, "retention": found}


def _shared(run: Run, source: Model, target: Model) -> tuple[Tensor, Tensor]:
    specs = {each.name: each for each in run.file.models}
    names = (
        token_ids(prepare(specs[each.facts.name], default_cache())) for each in (source, target)
    )
    both = zip((source, target), shared_tokens(*names), strict=True)
    one, other = (torch.from_numpy(embeddings(each.engine, ids)) for each, ids in both)
    return one, other


def _scores(model: Model, items: tuple[Item, ...], rows: Tensor | None) -> NDArray[np.float64]:
    examples = [Example(given + text, len(given)) for given, text in options(items)]
    with nullcontext() if rows is None else prompting(model.engine, rows):
        return SKILLS[SKILL].foreseen(items, *foreseen(model.engine, examples))


if __name__ == "__main__":
    main()
