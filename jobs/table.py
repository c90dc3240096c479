"""The matrix on a terminal."""

from collections.abc import Iterator

from rich.table import Table

from evaluation.cells import Cell
from evaluation.hypotheses import Hypothesis, hypotheses
from evaluation.matrix import GroupAgreement, Matrix
from evaluation.predictors import Predictor, predictors
from evaluation.retention import Interval, Level
from evaluation.routes import Route
from evaluation.wording import spelt, words

_STYLES = {
    Level.EXCELLENT: "bold green",
    Level.GOOD: "green",
    Level.ACCEPTABLE: "cyan",
    Level.MARGINAL: "yellow",
    Level.POOR: "red",
}


def matrix_table(matrix: Matrix) -> Table:
    """One row for each ordered pair and cargo, and for each model that nothing can reach."""
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
    for closed in matrix.unavailable:
        table.add_row(closed.name, "any", "any", f"[dim]{Level.UNAVAILABLE}[/]", "", "")
    return table


def matrix_lines(matrix: Matrix) -> list[str]:
    """What stands below the table: of each cargo, of routes, of layers, of groups."""
    return [
        *(f"closed   {each.reason}" for each in matrix.unavailable),
        *_cell_lines(matrix),
        *_hypothesis_lines(matrix),
        *_route_lines(matrix),
        *_predictor_lines(matrix),
        *_layer_lines(matrix),
        *_group_lines(matrix),
    ]


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _cell_lines(matrix: Matrix) -> list[str]:
    """What stands behind the retention of each cell of which there is more to say."""
    return [
        f"{cell.said.short:<8} {words(cell.concept)}, {cell.source} → {cell.target}: "
        f"{'; '.join(said)}"
        for cell in matrix.cells
        if (said := list(cell.evidence()))
    ]


def _hypothesis_lines(matrix: Matrix) -> list[str]:
    """What of adapters was to be found out, and what was."""
    decided = hypotheses(matrix.adapters) if matrix.adapters else ()
    return [f"{each.name}       {each.says}: {_decided(each)}" for each in decided]


def route_facts(of: Route) -> Iterator[str]:
    """Where the best path leads, what it keeps beside the direct way, and what others keep."""
    yield f"{' → '.join(of.path)} {spelt(of.routed)}, by its hops {of.expected:.2f}"
    yield f"direct {spelt(of.direct)}"
    yield f"gain {spelt(of.gain)}: {of.verdict}"
    for other in of.others:
        yield f"{other.name} {spelt(other.retention)}"


def predictor_facts(of: Predictor) -> str:
    """How one thing that was known beforehand goes with retention."""
    rank = "undefined" if of.spearman is None else spelt(of.spearman)
    if of.error is None or of.naive is None:
        return f"{of.name} ρ {rank}"
    return f"{of.name} ρ {rank}, off by {of.error:.2f} (the mean by {of.naive:.2f})"


def _predictor_lines(matrix: Matrix) -> list[str]:
    """What told beforehand how much crosses, a line for each cargo with enough pairs."""
    return [
        f"foretold {words(cargo)}, {some[0].pairs} pairs: {'; '.join(map(predictor_facts, some))}"
        for cargo, some in predictors(matrix).items()
    ]


def _route_lines(matrix: Matrix) -> list[str]:
    """The best path for each pair that has one, a line each."""
    return [
        f"route    {words(of.cargo)} of {words(of.concept)}: {'; '.join(route_facts(of))}"
        for of in matrix.routes
    ]


def _decided(each: Hypothesis) -> str:
    return each.verdict if each.value is None else f"{each.verdict}, at {spelt(each.value)}"


def _layer_lines(matrix: Matrix) -> list[str]:
    """How the two ways to pair layers agree, a line for each ordered pair."""
    return [
        f"layers   {pair.source} → {pair.target}: the partners measured by CKA are "
        f"{pair.depth_agreement.distance:.0%} of the depth from those at the same depth "
        f"(random pairings {pair.depth_agreement.chance:.0%})"
        for pair in matrix.similarities
    ]


def _group_lines(matrix: Matrix) -> list[str]:
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
