"""How much of a sentiment vector survives the crossing, in both directions of the demo.

Runs (or resumes) the demo sweep and records, for each ordered pair, the retention with its interval
beside every control. Asked for: retention of 0.90 or more in both directions, every control below
0.2 of native.

    python -m benchmarks.steering_retention
"""

from pathlib import Path

from benchmarks.cells import named
from benchmarks.record import record
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
            "pairs": named(swept.matrix.steering),
        },
    )


if __name__ == "__main__":
    main()
