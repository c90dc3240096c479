"""The pictures of the page for papers: each as SVG and as PNG."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from alignment.whole_file import whole_file
from evaluation.cargos import AnyCell
from evaluation.cargos.steering import SteeringCell
from evaluation.degradation import Degradation, degradations
from evaluation.drawing import Forest, forest
from evaluation.figure import INK, QUIET, matrix_figure
from evaluation.matrix import Grid, LayerSimilarity, Matrix
from evaluation.palette import LEVEL_COLOURS
from evaluation.predictors import Predictor, predictors
from evaluation.record import slug
from evaluation.retention import Level
from evaluation.route_graph import SIDE, RouteGraph, route_graphs
from evaluation.scatter import LEAST, MOST
from evaluation.wording import number, titled, words

FORMATS = ("svg", "png")
_ACCENT, _RULE = LEVEL_COLOURS[Level.EXCELLENT], "#dcdfe2"


def write_figures(matrix: Matrix, directory: Path) -> list[Path]:
    """Draw every picture that the matrix has; each file appears whole. In the order of the page."""
    written = []
    # Words stay words in an SVG, to be searched and set in the fonts of a paper.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": matrix.address}):
        for name, figure in _figures(matrix):
            for ending in FORMATS:
                path = directory / f"{name}.{ending}"
                with whole_file(path) as file:
                    figure.savefig(file, metadata={"Date": None} if ending == "svg" else None)
                written.append(path)
    return written


def _figures(matrix: Matrix) -> Iterator[tuple[str, Figure]]:
    def named(*parts: str) -> str:
        return "_".join(map(slug, parts))

    for facet, cells in matrix.facets.items():
        yield named("matrix", *facet), matrix_figure(matrix, cells)
    names = [model.name for model in matrix.models]
    for graph in route_graphs(names, matrix.cells, matrix.routes):
        yield named("routes", graph.cargo, graph.concept), routes_figure(graph)
    for cargo, some in predictors(matrix).items():
        yield named("foretold", cargo), foretold_figure(cargo, some)
    for cell in matrix.cells:
        yield named("kept", *cell.key), kept_figure(cell)
    for cell in matrix.steering:
        if cell.curve:
            yield named("strengths", *cell.key), strengths_figure(cell)
    for each in degradations(matrix):
        yield named("degradation", each.cargo, each.by), degradation_figure(each)
    for pair in matrix.similarities:
        yield named("layers", pair.source, pair.target), layers_figure(pair)


def strengths_figure(cell: SteeringCell) -> Figure:
    """What each strength does, natively, carried and in a random direction."""
    figure = Figure(figsize=(5.5, 3.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    strengths = [point.strength for point in cell.curve]
    warm = LEVEL_COLOURS[Level.POOR]
    for name, colour, style in (
        ("native", _ACCENT, "o--"),
        ("carried", _ACCENT, "o-"),
        ("control", warm, "o-"),
    ):
        odds = [getattr(point, name) for point in cell.curve]
        label = "random direction" if name == "control" else name
        axes.plot(strengths, odds, style, color=colour, markersize=4, label=label)
    axes.set_xlabel("strength, in lengths of a typical activation", color=QUIET)
    axes.set_ylabel("log-odds on dev, nats", color=QUIET)
    axes.legend(frameon=False, fontsize=9)
    _plain(axes)
    caption = f"{words(cell.concept)}, {cell.source} into {cell.target}"
    figure.suptitle(caption, color=INK, fontsize=11)
    return figure


def kept_figure(cell: AnyCell) -> Figure:
    """What is carried beside native, what else was tried, and every control."""
    caption = f"{words(cell.concept)}, {cell.source} into {cell.target}"
    return _forest_figure(forest(cell), caption, "share of the native effect")


def degradation_figure(of: Degradation) -> Figure:
    """A row for each value: the median over crossings, and each of them."""
    lost = of.by == "source of the loss"
    share = "given back, of all that is lost" if lost else "retention"
    return _forest_figure(of.forest, f"{titled(of.cargo)}, by {of.by}", share)


def _forest_figure(of: Forest, caption: str, share: str) -> Figure:
    """A row for each share, with its interval and single draws; controls in another colour."""
    figure = Figure(figsize=(7.5, 1.4 + 0.42 * len(of.rows)), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.axvspan(*(_share(place, of) for place in of.band), color=_RULE, alpha=0.5, zorder=0)
    ends = _share(0, of), _share(100, of)  # what lies beyond is drawn at them, as on the page
    for at, row in enumerate(of.rows):
        if row.share is None:
            axes.text(0.0, at, "undefined", va="center", color=QUIET, fontsize=9)
            continue
        colour = LEVEL_COLOURS[Level.POOR] if row.kind == "control" else _ACCENT
        low, value, high = np.clip((row.share.low, row.share.value, row.share.high), *ends)
        axes.plot((low, high), (at, at), color=colour, linewidth=1.6)
        every = [_share(place, of) for place in row.strip]
        axes.plot(every, np.full(len(every), at), "|", color=QUIET, markersize=9)
        axes.plot(value, at, "o", color=colour, markersize=6)
    for level in (0.0, 1.0):
        axes.axvline(level, color=_RULE, linewidth=1, zorder=0)
    axes.set_yticks(range(len(of.rows)), [row.label for row in of.rows], color=INK, fontsize=9)
    axes.set_ylim(len(of.rows) - 0.5, -0.5)
    axes.set_xlim(*ends)
    axes.set_xlabel(share, color=QUIET)
    _plain(axes)
    figure.suptitle(caption, color=INK, fontsize=11)
    return figure


def foretold_figure(cargo: str, some: Sequence[Predictor]) -> Figure:
    """What was known beforehand to the right, retention upwards; a dot is a crossing."""
    figure = Figure(figsize=(3.3 * len(some), 3.5), dpi=160, layout="constrained")
    for axes, of in zip(figure.subplots(1, len(some), squeeze=False)[0], some, strict=True):
        axes.plot(of.values, np.clip(of.retentions, LEAST, MOST), "o", color=_ACCENT, alpha=0.7)
        for level in (0.0, 0.5, 1.0):
            axes.axhline(level, color=_RULE, linewidth=1, zorder=0)
        axes.set_ylim(LEAST - 0.05, MOST + 0.05)
        rho = of.spearman
        said = (
            f"ρ {number(rho.value)} ({number(rho.low)} to {number(rho.high)})"
            if rho
            else "ρ undefined"
        )
        axes.set_title(said, color=INK, fontsize=9)
        axes.set_xlabel(of.name, color=QUIET)
        _plain(axes)
    figure.supylabel("retention", color=QUIET, fontsize=10)
    figure.suptitle(f"{titled(cargo)}: what could be foretold", color=INK, fontsize=11)
    return figure


def layers_figure(pair: LayerSimilarity) -> Figure:
    """How alike every two layers are, by three measures, with the measured pairing."""
    figure = Figure(figsize=(11, 3.9), dpi=160, layout="constrained")
    measures: dict[str, Grid] = {
        "CKA, features standardised": pair.cka,
        "CKA, raw": pair.cka_raw,
        "Mutual nearest neighbours": pair.mutual_knn,
    }
    for axes, (name, grid) in zip(figure.subplots(1, 3), measures.items(), strict=True):
        top = 1.0 if name.startswith("CKA") else None
        picture = axes.imshow(grid, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=top)
        axes.plot(
            range(len(pair.pairing)), pair.pairing, color=LEVEL_COLOURS[Level.POOR], linewidth=2
        )
        axes.set_title(name, color=INK, fontsize=10)
        axes.set_xlabel(f"layer of {pair.target}", color=QUIET)
        axes.set_ylabel(f"layer of {pair.source}", color=QUIET)
        axes.spines[:].set_visible(False)
        figure.colorbar(picture, ax=axes, shrink=0.8)
    return figure


def routes_figure(graph: RouteGraph) -> Figure:
    """Models, and hops in the colours of their levels; those of recommended routes are broad."""
    figure = Figure(figsize=(6, 6), dpi=160, layout="constrained")
    axes = figure.subplots()
    places = {node.name: (node.x, SIDE - node.y) for node in graph.nodes}
    for edge in graph.edges:
        axes.add_patch(
            FancyArrowPatch(
                places[edge.source],
                places[edge.target],
                connectionstyle="arc3,rad=-0.16",
                arrowstyle="-|>",
                mutation_scale=14,
                shrinkA=14,
                shrinkB=14,
                linewidth=4 if edge.routed else 1.6,
                color=LEVEL_COLOURS[edge.level],
            )
        )
    for node in graph.nodes:
        axes.plot(node.x, SIDE - node.y, "o", markersize=18, mfc="white", mec=INK)
        axes.text(node.x, SIDE - node.label, node.name, ha="center", color=INK, fontsize=10)
    axes.set_xlim(0, SIDE)
    axes.set_ylim(0, SIDE)
    axes.set_aspect("equal")
    axes.set_axis_off()
    caption = f"{words(graph.cargo)}, {words(graph.concept)}: hops, and routes that are recommended"
    figure.suptitle(caption, color=INK, fontsize=11)
    return figure


def _share(place: float, of: Forest) -> float:
    """What is drawn at that place."""
    return (place - of.zero) / (of.one - of.zero)


def _plain(axes: Axes) -> None:
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
