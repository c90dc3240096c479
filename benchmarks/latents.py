"""What models make of latents in place of a text, over the demo's models.

Runs (or resumes) the demo's run of latents.

    python -m benchmarks.latents [RUN.yaml]
"""

import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.record import kept, record
from evaluation.cargos.soft_prompt import PromptCell
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.soft_prompts import JOINT, LATER
from jobs.sweep import sweep

RUN_FILE = ROOT / "configs" / "latents" / "demo.yaml"


def main() -> None:
    """Sweep, or take up what a sweep has left, and record."""
    file = Path(sys.argv[1]) if sys.argv[1:] else RUN_FILE
    matrix = sweep(read_run_file(file), Reporter()).matrix
    cells = [cell for cell in matrix.cells if isinstance(cell, PromptCell)]
    record(
        "latents" if file == RUN_FILE else f"latents_{file.stem}",
        {
            "asked": {
                "retention of native prompt tuning, 16 latents": ">= 0.95",
                "joining later, of joint training": ">= 0.9",
                "adapter of a reader, of its weights": "<= 0.02",
                "controls": "<= 0.1",
            },
            "sweep": matrix.address,
            "median_retention": median(
                cell.retention.value for cell in cells if cell.retention is not None
            ),
            "crossings": {
                f"{cell.source} -> {cell.target}, {cell.concept}": _figures(cell) for cell in cells
            },
        },
    )


def _figures(cell: PromptCell) -> dict[str, Any]:
    ways = {way.name: way for way in cell.ways}
    joined = None
    if LATER in ways:
        one, other = (ways[name].retention for name in (JOINT, LATER))
        joined = None if one is None or other is None else other.value / one.value
    return {
        "items": cell.items,
        "latents": cell.count,
        "unit": cell.unit,
        "level": {
            name: asdict(of)
            for name, of in (
                ("without the text", cell.base),
                ("native", cell.native),
                ("carried", cell.carried),
            )
        },
        "retention": kept(cell.retention),
        "way": cell.way,
        "ways": {way.name: way.model_dump(mode="json") for way in cell.ways},
        "joining_later_of_joint": joined,
        "text_relay": kept(cell.relay),
        "latents_of_bytes": kept(cell.of_bytes),
        "controls": {each.name: kept(each.retention) for each in cell.controls},
        "adapter_share": cell.learned / cell.parameters,
        "native": {"tokens": cell.native_tokens, "seconds": cell.native_seconds},
    }


if __name__ == "__main__":
    main()
