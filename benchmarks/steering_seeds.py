"""How far retention moves with another sample of anchors and of texts for the vectors.

The models and concepts of configs/seeds.yaml, once for each seed: everything that is drawn (map
texts, vector texts, random directions, relabellings, shuffles) is drawn anew. Asked for: at least
three seeds.

    python -m benchmarks.steering_seeds

Shapes: s seeds.
"""

from pathlib import Path
from statistics import mean, stdev

from benchmarks.cells import named
from benchmarks.record import record
from evaluation.matrix import Matrix
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = Path("configs/seeds.yaml")
SEEDS = (0, 1, 2)


def main() -> None:
    """Measure and record."""
    run = read_run_file(ROOT / RUN_FILE)
    matrices = {}
    for seed in SEEDS:
        drawn = run.model_copy(update={"seed": seed, "name": f"{run.name}-{seed}"})
        matrices[seed] = sweep(drawn, Reporter()).matrix
    record(
        "steering_seeds",
        {
            "run": str(RUN_FILE),
            "asked": "three seeds of map texts and vector texts",
            "retention": _by_cell(list(matrices.values())),
            "seeds": {seed: named(matrix.steering) for seed, matrix in matrices.items()},
        },
    )


def _by_cell(matrices: list[Matrix]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for cells in zip(*(matrix.cells for matrix in matrices), strict=True):
        shares = [cell.retention.value for cell in cells if cell.retention is not None]
        several = len(shares) > 1
        found[" -> ".join(cells[0].key[:2]) + f", {cells[0].concept}"] = {
            "by seed": shares,
            "mean": mean(shares) if shares else None,
            "standard deviation": stdev(shares) if several else None,
        }
    return found


if __name__ == "__main__":
    main()
