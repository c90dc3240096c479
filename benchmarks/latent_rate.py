"""How much of a text its latents hold, by how many there are: the rate curve.

Runs (or resumes) the demo's run of latents with the skill that asks for the text itself, once for
each number of latents. What a character of the text costs is told with the latents, without a text,
and with the text itself.

    python -m benchmarks.latent_rate [COUNT ...]
"""

import sys
from typing import Any

from benchmarks.latents import RUN_FILE
from benchmarks.record import kept, record
from evaluation.cargos.soft_prompt import PromptCell
from jobs.config import read_run_file
from jobs.progress import Reporter
from jobs.sections import SoftPrompts
from jobs.sweep import sweep

SKILL = "recall"
COUNTS = (4, 16, 64)


def main() -> None:
    """Sweep, or take up what a sweep has left, and record: a file for each number."""
    file = read_run_file(RUN_FILE)
    assert file.soft_prompt is not None, "it carries latents"
    for count in map(int, sys.argv[1:] or COUNTS):
        told = {**dict(file.soft_prompt), "skills": (SKILL,), "count": count, "bytes": False}
        section = SoftPrompts.model_validate(told)
        run = file.model_copy(update={"name": f"{file.name}-{count}", "soft_prompt": section})
        cells = sweep(run, Reporter()).matrix.cells
        record(
            f"latent_rate.{count}",
            {
                "latents": count,
                "crossings": {
                    f"{cell.source} -> {cell.target}": _figures(cell)
                    for cell in cells
                    if isinstance(cell, PromptCell)
                },
            },
        )


def _figures(cell: PromptCell) -> dict[str, Any]:
    return {
        "unit": cell.unit,
        "items": cell.items,
        "without the text": cell.base.value,
        "latents": cell.carried.value,
        "the text, after a native prompt": cell.native.value,
        "retention": kept(cell.retention),
        "text_relay": kept(cell.relay),
        "controls": {each.name: kept(each.retention) for each in cell.controls},
    }


if __name__ == "__main__":
    main()
