"""What survives between exact twins, where the right answer is known to be all of it.

Runs (or resumes) configs/twins.yaml: SmolLM2, and two models that compute the same function in
another shape. Asked for: retention of 1.00, within 0.01.

    python -m benchmarks.steering_twins
"""

from pathlib import Path

from benchmarks.cells import named
from benchmarks.record import record
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = Path("configs/twins.yaml")


def main() -> None:
    """Measure and record."""
    matrix = sweep(read_run_file(ROOT / RUN_FILE), Reporter()).matrix
    shares = [cell.retention.value for cell in matrix.cells if cell.retention is not None]
    record(
        "steering_twins",
        {
            "run": str(RUN_FILE),
            "asked": {"retention": "1.00 within 0.01"},
            "farthest_from_1": max(abs(share - 1) for share in shares),
            "cells": named(matrix.steering),
        },
    )


if __name__ == "__main__":
    main()
