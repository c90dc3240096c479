"""What survives of each concept of configs/concepts/ between the two models of the demo.

Runs (or resumes) configs/steering.yaml and records, for each concept and ordered pair, the native
effect, the retention with its interval beside every control, and the cost on neutral text over the
native one. Asked for, over the pairs with a native effect: median retention of 0.95
or more, a lower bound of 0.80 or more on 80 % of them, every control's median at most 0.15, neutral
KL at most 1.2 times the native one.

    python -m benchmarks.steering_concepts
"""

from dataclasses import asdict
from pathlib import Path

from benchmarks.record import record
from evaluation.digest import digest
from evaluation.matrix import Cell
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
            "all": asdict(digest("all", matrix.cells)),
            "concepts": {name: asdict(digest(name, cells)) for name, cells in facets.items()},
            "cells": {" -> ".join(c.key[:2]) + f", {c.concept}": _figures(c) for c in matrix.cells},
            "seconds": matrix.seconds,
        },
    )


def _figures(cell: Cell) -> dict[str, object]:
    return {
        "retention": asdict(cell.retention) if cell.retention else None,
        "native_slope_nats": asdict(cell.native),
        "carried_slope_nats": asdict(cell.carried),
        "role": cell.role,
        "strength": cell.strength,
        "way": cell.way,
        "ways": {w.name: w.retention.value if w.retention else None for w in cell.ways},
        "cosine_to_native": cell.cosine_to_native,
        "controls": {control.name: asdict(control.retention) for control in cell.controls},
        "largest_draws": {c.name: c.spread.largest for c in cell.controls if c.spread},
        "neutral_kl": {row.name: row.kl for row in cell.neutral},
    }


if __name__ == "__main__":
    main()
