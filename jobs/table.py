"""The matrix on a terminal."""

from rich.table import Table

from evaluation.cells import Cell
from evaluation.matrix import GroupAgreement, Matrix
from evaluation.retention import Interval, Level

_STYLES = {
    Level.EXCELLENT: "bold green",
    Level.GOOD: "green",
    Level.ACCEPTABLE: "cyan",
    Level.MARGINAL: "yellow",
    Level.POOR: "red",
}


def matrix_table(matrix: Matrix) -> Table:
    """One row for each ordered pair and cargo."""
    table = Table(title=f"{matrix.run}: what crosses", title_justify="left")
    for column in ("from", "into"):
        table.add_column(column, overflow="fold")
    for column in ("cargo", "level", "retention", "worst control"):
        table.add_column(column)
    for cell in matrix.cells:
        table.add_row(
            cell.source,
            cell.target,
            f"{cell.cargo}\n{cell.concept}",
            f"[{_STYLES.get(cell.level, 'dim')}]{cell.level}[/]",
            "undefined" if cell.retention is None else _interval(cell.retention),
            _control(cell),
        )
    return table


def layer_lines(matrix: Matrix) -> list[str]:
    """How the two ways to pair layers agree, a line for each ordered pair."""
    return [
        f"layers   {pair.source} → {pair.target}: the partners measured by CKA are "
        f"{pair.depth_agreement.distance:.0%} of the depth from those at the same depth "
        f"(random pairings {pair.depth_agreement.chance:.0%})"
        for pair in matrix.similarities
    ]


def group_lines(matrix: Matrix) -> list[str]:
    """How the directions of a concept's groups agree, a line for each concept and model."""
    found: dict[tuple[str, str], list[GroupAgreement]] = {}
    for each in matrix.agreements:
        found.setdefault((each.concept, each.model), []).append(each)
    return [_group_line(*key, sites) for key, sites in found.items()]


def _group_line(concept: str, model: str, sites: list[GroupAgreement]) -> str:
    at = min(sites, key=lambda each: each.least)
    one, other = (at.names[place] for place in at.furthest)
    return (
        f"groups   {concept} in {model}: the directions of {one} and {other} agree least, cosine "
        f"{at.least:.2f} at {at.site} (by chance below {at.null_95:.2f})"
    )


def _interval(interval: Interval) -> str:
    return f"{interval.value:.2f}\n{interval.low:.2f} to {interval.high:.2f}"


def _control(cell: Cell) -> str:
    return "none" if cell.worst_control is None else f"{cell.worst_control:.2f}"


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
