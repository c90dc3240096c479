"""How much of a sentiment vector survives the crossing, in both directions of the demo.

Runs (or resumes) the demo sweep and records, for each ordered pair, the retention with its interval
beside every control. Asked for: retention of 0.90 or more in both directions, every control below
0.2 of native.

    python -m benchmarks.steering_retention
"""

from dataclasses import asdict
from pathlib import Path

from benchmarks.record import record
from evaluation.matrix import Cell
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = Path("configs/demo.yaml")


def main() -> None:
    """Measure and record."""
    swept = sweep(read_run_file(ROOT / RUN_FILE), Reporter())
    record(
        "steering_retention",
        {
            "run": str(RUN_FILE),
            "asked": {"retention": ">= 0.90 both ways", "controls": "< 0.2 of native"},
            "anchors": swept.matrix.anchors.model_dump(exclude={"fingerprint"}),
            "pairs": {f"{c.source} -> {c.target}": _figures(c) for c in swept.matrix.cells},
        },
    )


def _figures(cell: Cell) -> dict[str, object]:
    return {
        "retention": asdict(cell.retention) if cell.retention else None,
        "native_slope_nats": asdict(cell.native),
        "carried_slope_nats": asdict(cell.carried),
        "site": cell.site,
        "role": cell.role,
        "strength": cell.strength,
        "way": cell.way,
        "held_out_r2": cell.held_out_r2,
        "cosine_to_native": cell.cosine_to_native,
        "ways": {w.name: w.retention.value if w.retention else None for w in cell.ways},
        "controls": {control.name: asdict(control.retention) for control in cell.controls},
        "random_directions": {
            control.name: {"count": control.spread.count, "largest": control.spread.largest}
            for control in cell.controls
            if control.spread
        },
        "neutral": {row.name: {"nll": row.nll, "kl": row.kl} for row in cell.neutral},
    }


if __name__ == "__main__":
    main()
