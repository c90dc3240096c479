"""`isthmus shards`: what each rank of a model that is cut up holds, and which slices it reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from actors.catalog import ClosedWeights, closed_line
from actors.checkpoints import read_json
from actors.fleet import find
from alignment.whole_file import whole_file
from cluster.placement import GIB
from jobs.check import DTYPES
from jobs.names import one_of

if TYPE_CHECKING:
    from actors.shard_plan import RankPlan
    from actors.slices import Piece

COMPUTED_IN = ("bf16", "fp32")
_MIB = 2**20


class ShardsError(ValueError):
    """What cannot be planned; one line says why, and what can."""


def plan_shards(model: str, ranks: int, dtype: str) -> list["RankPlan"]:
    """Of a model of the catalog, of the hub, or in a directory, whose own files are then planned.

    Raises:
        ModelError: there is no such model, or its weights are closed.
        ShardsError, ShardingError, SliceError: it cannot be cut so.
    """
    if ranks < 2:
        raise ShardsError(f"--ranks {ranks}: a model is cut over 2 ranks or more")
    one_of("dtype", dtype, COMPUTED_IN, ShardsError)
    entry = find(model)
    if entry.config is None:
        raise ClosedWeights(closed_line(entry))
    # Not at the top: DeepSpeed takes seconds to import, and what is wrong is said at once.
    from actors.shard_plan import plan_ranks

    here = entry.directory
    config = entry.config if here is None else read_json(here / "config.json")
    return plan_ranks(config, DTYPES[dtype], ranks, here)


def ranks_table(title: str, plans: list["RankPlan"]) -> Table:
    """A line for each rank."""
    table = Table(title=title, title_justify="left", box=None)
    for column in ("rank", "holds", "reads", "files", "slices", "largest slice"):
        table.add_column(column, justify="right", no_wrap=True)
    for plan in plans:
        largest = max(piece.bytes for piece in plan.pieces)
        table.add_row(
            str(plan.rank),
            f"{plan.held / GIB:.2f} GiB",
            f"{plan.read / GIB:.2f} GiB",
            str(len(plan.by_file)),
            f"{len(plan.pieces):,}",
            f"{largest / _MIB:,.0f} MiB",
        )
    table.caption = "isthmus shards ... --rank N says which slices"
    table.caption_justify = "left"
    return table


def slice_lines(plan: "RankPlan") -> Iterator[str]:
    """Every slice that one rank reads, a line each, under its file."""
    for file, pieces in plan.by_file.items():
        yield f"{file}: {sum(piece.bytes for piece in pieces) / _MIB:,.1f} MiB"
        for piece in pieces:
            yield f"  {piece.stored.key}{_slice(piece)}  {piece.bytes / _MIB:,.2f} MiB"


def write_shards(plans: list["RankPlan"], to: Path) -> None:
    """Every slice of every rank, as JSON."""
    said = [
        {
            "rank": plan.rank,
            "holds_bytes": plan.held,
            "reads_bytes": plan.read,
            "slices": [
                {
                    "file": piece.stored.file,
                    "tensor": piece.stored.key,
                    "slice": piece.source,
                    "parameter": piece.parameter,
                    "into": piece.target,
                }
                for pieces in plan.by_file.values()
                for piece in pieces
            ],
        }
        for plan in plans
    ]
    with whole_file(to) as file:
        file.write_text(json.dumps(said, indent=1), encoding="utf-8")


def _slice(piece: "Piece") -> str:
    """As Python writes it: a dimension that is read whole is a colon."""
    cut = [
        ":" if (start, end) == (0, size) else f"{start}:{end}"
        for (start, end), size in zip(piece.source, piece.stored.shape, strict=True)
    ]
    return f"[{', '.join(cut)}]"
