"""The prior over many models as one picture: sources down, targets across, shades for scores."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from actors.catalog import Entry
from alignment.whole_file import whole_file
from evaluation.compatibility import INCOMPATIBLE, TIERS, prior

INK, QUIET, CLOSED = "#1c2733", "#66727f", "#e4e7ea"
# Worst to best; safe for all eyes.
COLOURS = ("#a84a12", "#e0a458", "#cfe3f1", "#6fb0d8", "#14507a")
INKS = ("#ffffff", "#10202c", "#10202c", "#10202c", "#ffffff")
READABLE = 64  # models beyond which the numbers in the tiles cannot be read


def prior_figure(entries: Sequence[Entry]) -> Figure:
    """Every ordered pair, in the order of the entries; lines part the series."""
    names, scores = [entry.name for entry in entries], _scores(entries)
    size = len(entries)
    side = max(4.0, 0.3 * size)
    figure = Figure(figsize=(side + 2.4, side + 2.4), dpi=80, layout="constrained")
    axes = figure.subplots()
    floors = [0.0, *sorted(floor for floor, _ in TIERS), 1.01]
    colours = ListedColormap(COLOURS).with_extremes(bad=CLOSED)
    norm = BoundaryNorm(floors, len(COLOURS))
    axes.imshow(np.ma.masked_invalid(scores), cmap=colours, norm=norm)
    if size <= READABLE:
        _write_scores(axes, scores, floors)
    for edge in _edges([entry.series or entry.maker for entry in entries]):
        axes.axhline(edge, color="white", linewidth=1.6)
        axes.axvline(edge, color="white", linewidth=1.6)
    axes.set_xticks(range(size), names, rotation=90, fontsize=8, color=INK)
    axes.set_yticks(range(size), names, fontsize=8, color=INK)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("into (target)", color=QUIET)
    axes.set_ylabel("from (source)", color=QUIET)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    tiers = [INCOMPATIBLE, *(name for _, name in reversed(TIERS))]
    patches = [Patch(color=c, label=name) for c, name in zip(COLOURS, tiers, strict=True)]
    closed = Patch(color=CLOSED, label="weights not published")
    figure.legend(handles=[*patches, closed], loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle("Prior: what the architectures alone predict. Nothing was measured.", color=INK)
    return figure


def write_prior(entries: Sequence[Entry], path: Path) -> None:
    """Draw and save, as the suffix says (png, svg, pdf)."""
    with whole_file(path) as file:
        prior_figure(entries).savefig(file)


def _scores(entries: Sequence[Entry]) -> np.ndarray:
    """Scores [size, size]; NaN where a model is closed."""
    scores = np.full((len(entries), len(entries)), np.nan)
    open_ones = [(at, entry) for at, entry in enumerate(entries) if entry.weights == "open"]
    for row, source in open_ones:
        for column, target in open_ones:
            scores[row, column] = prior(source, target).score
    return scores


def _write_scores(axes: Axes, scores: np.ndarray, floors: Sequence[float]) -> None:
    for (row, column), score in np.ndenumerate(scores):
        if np.isnan(score):
            continue
        ink = INKS[int(np.searchsorted(floors, score, side="right")) - 1]
        text = f"{score:.2f}".lstrip("0")
        axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=ink)


def _edges(groups: Sequence[str | None]) -> list[float]:
    return [at + 0.5 for at, (one, other) in enumerate(pairwise(groups)) if one != other]
