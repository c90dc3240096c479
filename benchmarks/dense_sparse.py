"""Whether maps that know of experts are better between dense and sparse models than ridge.

Runs (or resumes) configs/routing.yaml and records, for every ordered pair and fitter, R² on
held-out rows and retention on test.

    python -m benchmarks.dense_sparse
"""

from pathlib import Path

from benchmarks.record import record
from evaluation.cargos.steering import SteeringCell
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = Path("configs/routing.yaml")


def main() -> None:
    """Measure and record."""
    matrix = sweep(read_run_file(ROOT / RUN_FILE), Reporter()).matrix
    pairs: dict[str, dict[str, dict[str, float | None]]] = {}
    for cell in matrix.steering:
        pairs.setdefault(f"{cell.source} -> {cell.target}", {})[cell.concept] = _shares(cell)
    record(
        "dense_sparse",
        {
            "run": str(RUN_FILE),
            "anchors": matrix.anchors.model_dump(exclude={"fingerprint"}),
            "held_out_r2": {
                f"{cell.source} -> {cell.target}": {
                    way.name: way.held_out_r2 for way in cell.ways if way.held_out_r2 is not None
                }
                for cell in matrix.steering
            },
            "retention": pairs,
        },
    )


def _shares(cell: SteeringCell) -> dict[str, float | None]:
    """Retention on test by way to carry; None where the native effect is none."""
    return {way.name: way.retention.value if way.retention else None for way in cell.ways}


if __name__ == "__main__":
    main()
