"""The matrix on a terminal."""

from rich.table import Table

from evaluation.matrix import Cell, Matrix
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
    for column in ("source", "target", "cargo"):
        table.add_column(column, overflow="fold")
    for column in ("level", "retention [95 %]", "worst control", "site", "fitter"):
        table.add_column(column)
    for cell in matrix.cells:
        table.add_row(
            cell.source,
            cell.target,
            f"{cell.cargo} ({cell.concept})",
            f"[{_STYLES.get(cell.level, 'dim')}]{cell.level}[/]",
            "undefined" if cell.retention is None else _interval(cell.retention),
            _control(cell),
            cell.site,
            cell.fitter,
        )
    return table


def _interval(interval: Interval) -> str:
    return f"{interval.value:.2f} \\[{interval.low:.2f}, {interval.high:.2f}]"


def _control(cell: Cell) -> str:
    return "none" if cell.worst_control is None else f"{cell.worst_control:.2f}"
