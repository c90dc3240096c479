"""The page: one self-contained HTML file that says what was measured, to people."""

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alignment.whole_file import whole_file
from evaluation import scatter, strength_curve
from evaluation.assertions import assertions
from evaluation.cargos import AnyCell
from evaluation.cargos.kv_cache import CacheCell
from evaluation.cells import Cell
from evaluation.costs import costs
from evaluation.degradation import degradations
from evaluation.digest import HELD, Digest, digest
from evaluation.drawing import SIDE, LayerMap, forest, layer_maps, neighbour_top
from evaluation.hypotheses import hypotheses
from evaluation.matrix import LayerSimilarity, Matrix
from evaluation.palette import LEVEL_COLOURS, LEVEL_INKS
from evaluation.predictors import predictors
from evaluation.retention import LEVEL_RANGES, Level
from evaluation.route_graph import SIDE as GRAPH_SIDE
from evaluation.route_graph import route_graphs
from evaluation.wording import count, listed, number, percent, portion, short, titled, words

TEMPLATE = "page.html.j2"  # a cargo has a part of its own, in `cargos`
FILTERS = (number, percent, portion, short, titled, words)
MANY_CELLS = 4  # above this, the details of a cell start folded
Directions = tuple[LayerSimilarity, ...]
UNDECIDED = {Level.UNDEFINED, Level.UNAVAILABLE}


def write_page(matrix: Matrix, path: Path) -> Path:
    """Write the page of a matrix; it appears whole, or the old one stays."""
    text = render(matrix)
    with whole_file(path) as file:
        file.write_text(text, encoding="utf-8")
    return path


def render(matrix: Matrix) -> str:
    """The page as text. It asks the network for nothing."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {each.__name__: each for each in FILTERS}
    return environment.get_template(TEMPLATE).render(
        matrix=matrix,
        summary=summary(matrix),
        cells={cell.key: cell for cell in matrix.cells},
        digests=_digests(matrix),
        hypotheses=hypotheses(matrix.adapters) if matrix.adapters else (),
        forests={cell.key: forest(cell) for cell in matrix.cells},
        maps=_pairs(matrix),
        routes=route_graphs([model.name for model in matrix.models], matrix.cells, matrix.routes),
        graph_side=GRAPH_SIDE,
        predictors=predictors(matrix),
        assertions=assertions(matrix),
        degradations=degradations(matrix),
        costs=costs(matrix),
        scatter=scatter,
        curves=strength_curve,
        levels=[(level, LEVEL_RANGES[level], LEVEL_COLOURS[level]) for level in Level],
        colours=LEVEL_COLOURS,
        inks=LEVEL_INKS,
        side=SIDE,
        held=HELD,
        folded=len(matrix.cells) > MANY_CELLS,
    )


def _pairs(matrix: Matrix) -> list[tuple[LayerSimilarity, tuple[LayerMap, ...], Directions]]:
    """Every two models once, with their maps: the way back is the same picture on its side."""
    top = neighbour_top(matrix.similarities)
    pairs: dict[frozenset[str], list[LayerSimilarity]] = {}
    for pair in matrix.similarities:
        pairs.setdefault(frozenset((pair.source, pair.target)), []).append(pair)
    return [(ways[0], layer_maps(ways[0], top), tuple(ways)) for ways in pairs.values()]


def _digests(matrix: Matrix) -> list[Digest]:
    """A line for each cargo and concept, and one for all of a cargo that has several."""
    lines = []
    for cargo in matrix.cargoes:
        of = {concept: cells for (name, concept), cells in matrix.facets.items() if name == cargo}
        said = words(cargo)
        lines += [digest(f"{said}, {words(concept)}", cells) for concept, cells in of.items()]
        if len(of) > 1:
            lines.append(digest(f"{said}, all", [cell for cells in of.values() for cell in cells]))
    return lines


def summary(matrix: Matrix) -> str:
    """What was found, in plain sentences, from the numbers alone; a line for each cargo."""
    names = [model.name for model in matrix.models]
    of_cargoes = [
        " ".join(_said_of([cell for cell in matrix.cells if cell.cargo == cargo]))
        for cargo in matrix.cargoes
    ]
    said = "\n".join(of_cargoes or ["Nothing was carried."])
    return f"{count(len(names), 'model')} took part: {listed(names)}. {said}"


def _said_of(cells: list[AnyCell]) -> list[str]:
    kept = [cell for cell in cells if cell.retention is not None and cell.level not in UNDECIDED]
    good = [cell for cell in kept if cell.level in {Level.EXCELLENT, Level.GOOD}]
    concepts = {cell.concept for cell in cells}
    noun = "direction" if len(concepts) == 1 else "crossing"
    share = f"{len(good)} of {len(cells)} {noun}s"
    words_for = cells[0].said
    if len(concepts) > 1:
        share += f" of {len(concepts)} {words_for.several}"
    said = [f"{words_for.title} crossed well (Good or better) in {share}."]
    by_value = sorted(kept, key=lambda cell: cell.retention.value if cell.retention else 0.0)
    if by_value:
        best, worst = by_value[-1], by_value[0]
        assert best.retention is not None, "only cells with a retention are ranked"
        assert worst.retention is not None, "only cells with a retention are ranked"
        span = f"{number(100 * best.retention.low, 0)} to {percent(best.retention.high)}"
        said.append(
            f"The best, {_crossing(best, concepts)}, kept {percent(best.retention.value)} of "
            f"{words_for.native} (95 % interval {span})."
        )
        if len(by_value) > 1:
            said.append(
                f"The weakest, {_crossing(worst, concepts)}, kept {percent(worst.retention.value)}."
            )
    if missing := len(cells) - len(kept):
        said.append(
            f"In {count(missing, noun).lower()} there is no clear native effect to take a "
            "share of, so nothing is claimed."
        )
    caches = [cell for cell in kept if isinstance(cell, CacheCell)]
    return said + (_said_of_caches(caches) if caches else _said_of_controls(kept))


def _said_of_controls(kept: list[AnyCell]) -> list[str]:
    said = []
    shares = [(abs(each.retention.value), each.name) for cell in kept for each in cell.controls]
    if finite := [each for each in shares if math.isfinite(each[0])]:
        most, name = max(finite)
        said.append(
            f"The strongest control, {words(name)}, which should carry nothing, reached "
            f"{percent(most)} of the native effect."
        )
    draws = [each.spread.largest for cell in kept for each in cell.controls if each.spread]
    if draws:
        said.append(
            "Of controls that are drawn several times that is the mean; one draw alone reached up "
            f"to {percent(max(draws))}."
        )
    return said


def _said_of_caches(kept: list[CacheCell]) -> list[str]:
    said = []
    if floors := [cell.tokens.value for cell in kept if cell.tokens]:
        said.append(
            "A map that reads nothing of the source, only what the target knows of its own tokens, "
            f"kept up to {percent(max(floors))}: what is kept beyond that has crossed."
        )
    late: dict[float, float] = {}
    for score in (score for cell in kept for score in cell.again if score.retention):
        assert score.retention is not None, "only those with a retention are looked at"
        late[score.share] = max(score.retention.value, late.get(score.share, -math.inf))
    if late:
        shares, reached = listed([*map(portion, late)]), listed([*map(percent, late.values())])
        said.append(
            f"Where the target reads the last {shares} of the tokens again itself, up to {reached} "
            "is kept."
        )
    # A control may do harm; what matters is whether one does good.
    if controls := [each.retention.value for cell in kept for each in cell.controls]:
        most = max(controls)
        said.append(
            f"The strongest control, which should carry nothing, kept {percent(most)}."
            if most > 0
            else "No control did better than the target alone."
        )
    return said


def _crossing(cell: Cell, concepts: set[str]) -> str:
    pair = f"{cell.source} into {cell.target}"
    return pair if len(concepts) == 1 else f"{words(cell.concept)} from {pair}"
