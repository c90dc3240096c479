"""The matrix on a terminal."""

from collections.abc import Iterator

from rich.table import Table

from evaluation.cells import AdapterCell, CacheCell, Cell, PromptCell
from evaluation.hypotheses import Hypothesis, hypotheses
from evaluation.matrix import GroupAgreement, Matrix
from evaluation.predictors import Predictor, predictors
from evaluation.retention import Interval, Level
from evaluation.routes import Route
from evaluation.wording import words

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
        *_cache_lines(matrix),
        *_adapter_lines(matrix),
        *_prompt_lines(matrix),
        *_route_lines(matrix),
        *_predictor_lines(matrix),
        *_layer_lines(matrix),
        *_group_lines(matrix),
    ]


def cache_facts(cell: CacheCell) -> Iterator[str]:
    """What own tokens alone give, what reading the last ones again does, what smaller maps keep,
    each kind of text, and how well the heads of one layer tell of those of another."""
    yield f"own tokens alone {share(cell.tokens)}"
    for score in cell.again:
        yield f"last {100 * score.share:g}% read again {share(score.retention)}"
    for small in cell.small:
        yield f"{small.name} map of {small.map_bytes / 1e6:.1f} MB {share(small.retention)}"
    for of in cell.contents:
        yield f"{words(of.name)} {share(of.retention)}"
    heads = (f"{scheme} {r2:.2f}" for scheme, r2 in cell.heads.items())
    yield f"R² of one layer by its heads: {', '.join(heads)}"


def adapter_facts(cell: AdapterCell) -> Iterator[str]:
    """What each way keeps, and what it read for that beside what the native adapter did."""
    for way in cell.ways:
        yield f"{way.name} {share(way.retention)}, {way.tokens:,} tokens"
    yield f"native {cell.native_tokens:,} tokens, {cell.base.value:.3f} to {cell.native.value:.3f}"
    yield cell.unit
    if cell.safety is not None:
        refused = f"{cell.safety.harmful_before.value:.0%} refused before"
        yield f"harmful requests are answered more often by {share(cell.safety.drift)}, {refused}"
        yield f"the judge of refusals errs in {share(cell.safety.error)}"


def prompt_facts(cell: PromptCell) -> Iterator[str]:
    """What each way keeps, and what as many tokens of the text do."""
    for way in cell.ways:
        yield f"{way.name} {share(way.retention)}"
    yield f"the first {cell.count} tokens of the text {share(cell.relay)}"
    if cell.of_bytes is not None:
        yield f"latents of bytes, without a source {share(cell.of_bytes)}"
    yield f"without the text {cell.base.value:.3f}, native {cell.native.value:.3f}"
    yield cell.unit
    yield f"the adapter of the target is {cell.learned / cell.parameters:.2%} of its weights"


def share(retention: Interval | None) -> str:
    """A retention in a line, with its interval."""
    if retention is None:
        return "undefined"
    return f"{retention.value:.2f} ({retention.low:.2f} to {retention.high:.2f})"


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _cache_lines(matrix: Matrix) -> list[str]:
    """What stands behind the retention of caches, a line for each ordered pair."""
    return [
        f"caches   {cell.source} → {cell.target}: {'; '.join(cache_facts(cell))}"
        for cell in matrix.cells
        if isinstance(cell, CacheCell)
    ]


def _adapter_lines(matrix: Matrix) -> list[str]:
    """What stands behind the retention of adapters, a line for each skill and ordered pair."""
    lines = [
        f"adapters {words(cell.concept)}, {cell.source} → {cell.target}: "
        f"{'; '.join(adapter_facts(cell))}"
        for cell in matrix.adapters
    ]
    decided = hypotheses(matrix.adapters) if lines else ()
    return [*lines, *(f"{each.name}       {each.says}: {_decided(each)}" for each in decided)]


def _prompt_lines(matrix: Matrix) -> list[str]:
    """What stands behind the retention of latents, a line for each skill and ordered pair."""
    return [
        f"latents  {words(cell.concept)}, {cell.source} → {cell.target}: "
        f"{'; '.join(prompt_facts(cell))}"
        for cell in matrix.cells
        if isinstance(cell, PromptCell)
    ]


def route_facts(of: Route) -> Iterator[str]:
    """Where the best path leads, what it keeps beside the direct way, and what others keep."""
    yield f"{' → '.join(of.path)} {share(of.routed)}, by its hops {of.expected:.2f}"
    yield f"direct {share(of.direct)}"
    yield f"gain {share(of.gain)}: {of.verdict}"
    for other in of.others:
        yield f"{other.name} {share(other.retention)}"


def predictor_facts(of: Predictor) -> str:
    """How one thing that was known beforehand goes with retention."""
    rank = "undefined" if of.spearman is None else share(of.spearman)
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
    return each.verdict if each.value is None else f"{each.verdict}, at {share(each.value)}"


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
