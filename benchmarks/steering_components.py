"""Attention against MLP against the residual stream, early, in the middle and late.

Runs (or resumes) configs/components.yaml and records, for every place of every pair, the effect of
the native vector on dev and the share of it that is carried there, and on test what survives at the
best place.

    python -m benchmarks.steering_components
"""

from pathlib import Path

from benchmarks.cells import named
from benchmarks.record import record
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = Path("configs/components.yaml")


def main() -> None:
    """Measure and record."""
    matrix = sweep(read_run_file(ROOT / RUN_FILE), Reporter()).matrix
    record("steering_components", {"run": str(RUN_FILE), "cells": named(matrix.steering)})


if __name__ == "__main__":
    main()
