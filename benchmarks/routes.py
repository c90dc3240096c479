"""Whether a steering vector goes better through another model than directly.

Runs (or resumes) a run with four models and three concepts. A route wins where the whole interval
of its gain, paired over test prompts, is above zero.

    python -m benchmarks.routes
"""

from typing import Any

from benchmarks.record import kept, record
from evaluation.routes import Route
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = ROOT / "configs" / "routes.yaml"


def main() -> None:
    """Sweep, or take up what a sweep has left, and record."""
    matrix = sweep(read_run_file(RUN_FILE), Reporter()).matrix
    won = [of for of in matrix.routes if of.recommended]
    lost = [of for of in matrix.routes if of.gain.high < 0]
    record(
        "routes",
        {
            "asked": "a pair where a route wins, or that none does",
            "crossings": len(matrix.cells),
            "routes": len(matrix.routes),
            "better_than_direct": len(won),
            "worse_than_direct": len(lost),
            "each": [_figures(of) for of in matrix.routes],
        },
    )


def _figures(of: Route) -> dict[str, Any]:
    return {
        "concept": of.concept,
        "path": list(of.path),
        "by_its_hops": of.expected,
        "direct": kept(of.direct),
        "routed": kept(of.routed),
        "gain": kept(of.gain),
        "recommended": of.recommended,
        "others": {other.name: kept(other.retention) for other in of.others},
    }


if __name__ == "__main__":
    main()
