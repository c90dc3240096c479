"""The compatibility matrix as one picture, for the tracker."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from evaluation.cells import Cell
from evaluation.matrix import Matrix
from evaluation.palette import LEVEL_COLOURS, LEVEL_INKS
from evaluation.retention import Level
from evaluation.wording import words

INK, QUIET, EMPTY = "#1c2733", "#66727f", "#f1f3f5"
TILE = 0.94


def matrix_figure(matrix: Matrix, cells: Sequence[Cell]) -> Figure:
    """Sources down, targets across; a tile says the level and the retention with its interval.

    `cells` are those of one cargo and concept.
    """
    closed = [model.name for model in matrix.unavailable]
    names = [*(model.name for model in matrix.models), *closed]
    size = len(names)
    figure = Figure(figsize=(2.4 + 2.1 * size, 1.7 + 1.25 * size), dpi=160, layout="constrained")
    axes = figure.subplots()
    by_pair = {(cell.source, cell.target): cell for cell in cells}
    for row, source in enumerate(names):
        for column, target in enumerate(names):
            cell = by_pair.get((source, target))
            none = source != target and (source in closed or target in closed)
            level = Level.UNAVAILABLE if none else None if cell is None else cell.level
            colour = EMPTY if level is None else LEVEL_COLOURS[level]
            ink = QUIET if level is None else LEVEL_INKS[level]
            corner = (column - TILE / 2, row - TILE / 2)
            style = "round,pad=0,rounding_size=0.05"
            axes.add_patch(FancyBboxPatch(corner, TILE, TILE, boxstyle=style, fc=colour, ec="none"))
            if cell is None:
                text = "itself" if source == target else str(level or "not measured")
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
                continue
            axes.text(
                column,
                row - 0.22,
                str(cell.level),
                ha="center",
                va="center",
                color=ink,
                fontsize=10,
            )
            kept = cell.retention
            share = "–" if kept is None else f"{kept.value:.2f}"
            axes.text(
                column,
                row + 0.04,
                share,
                ha="center",
                va="center",
                color=ink,
                fontsize=17,
                weight="bold",
            )
            if kept is not None:
                span = f"{kept.low:.2f} to {kept.high:.2f}"
                axes.text(column, row + 0.3, span, ha="center", va="center", color=ink, fontsize=9)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xticks(range(size), names, color=INK, fontsize=10)
    axes.set_yticks(range(size), names, color=INK, fontsize=10)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("into (target)", color=QUIET, labelpad=8)
    axes.set_ylabel("from (source)", color=QUIET, labelpad=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    cargo, concept = cells[0].cargo, cells[0].concept
    caption = (
        f"{words(cargo)}, {words(concept)}: share of the native effect kept, with 95 % intervals"
    )
    figure.suptitle(caption, color=INK, fontsize=11)
    return figure
