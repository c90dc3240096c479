"""What survives of each concept of configs/concepts/ between every two models of a fleet.

Runs (or resumes) configs/steering.yaml and records, for each concept and ordered pair, the native
effect, the retention with its interval beside every control, and the cost on neutral text over the
native one at equal effect. Asked for, over the pairs with a real native effect: median retention of
0.95 or more, a lower bound of 0.80 or more on 80 % of them, every control's median at most 0.15,
neutral KL at most 1.2 times the native one. The same is recorded over all pairs whose native
interval leaves out zero, those included whose effect relabelled texts have too.

    python -m benchmarks.steering_concepts
"""

from dataclasses import asdict
from pathlib import Path

from benchmarks.cells import named
from benchmarks.record import record
from evaluation.cells import Cell
from evaluation.digest import digest
from evaluation.matrix import Matrix
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = Path("configs/steering.yaml")
ASKED = {
    "median retention": ">= 0.95",
    "lower bound": ">= 0.80 on 80 % of the pairs with a native effect",
    "median of each control": "<= 0.15",
    "neutral KL over native": "<= 1.2",
}


def main() -> None:
    """Measure and record."""
    matrix = sweep(read_run_file(ROOT / RUN_FILE), Reporter()).matrix
    facets = {concept: cells for (_, concept), cells in matrix.facets.items()}
    record(
        "steering_concepts",
        {
            "run": str(RUN_FILE),
            "asked": ASKED,
            "models": [model.name for model in matrix.models],
            "anchors": matrix.anchors.model_dump(exclude={"fingerprint"}),
            "real effects": asdict(digest("real", matrix.cells)),
            "all effects": asdict(digest("all", matrix.cells, by_chance_too=True)),
            "across families": asdict(digest("across families", _across(matrix))),
            "concepts": {name: asdict(digest(name, cells)) for name, cells in facets.items()},
            "cells": named(matrix.steering),
            "seconds": matrix.seconds,
        },
    )


def _across(matrix: Matrix) -> list[Cell]:
    """The cells between models that have no ancestor in common: Gemma and the others."""
    family = {model.name: model.vocabulary for model in matrix.models}  # tokenizers tell them apart
    return [cell for cell in matrix.cells if family[cell.source] != family[cell.target]]


if __name__ == "__main__":
    main()
