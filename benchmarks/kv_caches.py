"""What crosses with a cache, both ways of the demo: the sweep of configs/caches.yaml, as it is.

python -m benchmarks.kv_caches
"""

from dataclasses import asdict
from typing import Any

from benchmarks.record import kept, record
from evaluation.cargos.kv_cache import CacheCell
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep


def main() -> None:
    """Sweep, or take up what a sweep has left, and record."""
    matrix = sweep(read_run_file(ROOT / "configs/caches.yaml"), Reporter()).matrix
    record(
        "kv_caches",
        {
            "asked": {
                "closed form": ">= 0.80",
                "a quarter read again": ">= 0.97",
                "controls": "<= 0.2",
            },
            "sweep": matrix.address,
            "crossings": {
                f"{cell.source} -> {cell.target}": _figures(cell)
                for cell in matrix.cells
                if isinstance(cell, CacheCell)
            },
        },
    )


def _figures(cell: CacheCell) -> dict[str, Any]:
    return {
        "texts": cell.texts,
        "nats": {
            name: asdict(of)
            for name, of in (
                ("base", cell.base),
                ("native", cell.native),
                ("carried", cell.carried),
            )
        },
        "retention": kept(cell.retention),
        "own_tokens_alone": kept(cell.tokens),
        "controls": {control.name: kept(control.retention) for control in cell.controls},
        "read_again": {each.share: kept(each.retention) for each in cell.again},
        "small": {
            each.name: {"bytes": each.map_bytes, "retention": kept(each.retention)}
            for each in cell.small
        },
        "by_kind": {
            content.name: {"native_gain": content.gain, "retention": kept(content.retention)}
            for content in cell.contents
        },
        "held_out_r2": cell.held_out_r2,
        "heads_r2": cell.heads,
        "map_bytes": cell.map_bytes,
    }


if __name__ == "__main__":
    main()
