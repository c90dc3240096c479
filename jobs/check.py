"""`isthmus check`: what to expect of a pair before anyone pays for loading it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.blueprint import UNSTATED_CONTEXT, Blueprint
from actors.cargo.memory_record import RECORD_FILE, Record, read_record
from actors.catalog import ClosedWeights, Entry, closed_line
from actors.fleet import find, spec
from evaluation.calibration import Calibration, calibration
from evaluation.cargos import CARGOS, AnyCell
from evaluation.compatibility import Impact, Prior, Risk, prior
from evaluation.expectation import Band, expected
from evaluation.matrix import Matrix, MatrixError
from evaluation.wording import spelt
from jobs.config import home
from jobs.footprint import LOAD_BYTES_PER_SECOND, Footprint, footprint, memory_here
from jobs.names import MATRIX_FILE, one_of
from jobs.table import gib

if TYPE_CHECKING:
    from actors.requirements import Requirement

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
# On these, ridge on many anchors carried most (benchmarks/results/steering_retention.json).
_ORDER_SAME_WIDTH = ("ridge", "procrustes", "pad_truncate")
_ORDER = ("ridge", "procrustes")


class CheckError(ValueError):
    """A question that cannot be asked; one line says what is allowed."""


@dataclass(frozen=True)
class Question:
    """Carrying `cargo` between two models, with this much context, precision and hardware.

    `memory` is the record of the cache that is to be carried, if it is a certain one.
    """

    source: Entry
    target: Entry
    cargo: str
    context: int
    dtype: str
    gpus: int
    memory: Record | None = None

    @property
    def models(self) -> tuple[Entry, ...]:
        """Both, or the one where they are the same."""
        if self.source.name == self.target.name:
            return (self.source,)
        return self.source, self.target


def ask(
    source: str, target: str, cargo: str, context: int | None, dtype: str, gpus: int
) -> Question:
    """Understand what a user wrote; the source may be a memory package, as its directory.

    Raises:
        ModelError: no such model; ClosedWeights: it cannot be carried into or out of.
        PackageError: a directory that is meant as a memory package, and is none.
        CheckError: an unknown cargo or precision, or a context or number of GPUs that cannot be.
    """
    memory = read_record(Path(source)) if (Path(source) / RECORD_FILE).is_file() else None
    if memory is not None:
        if context is not None:
            raise CheckError(f"--context-length: {source} has {memory.tokens:,} tokens, as it is")
        source, cargo, context = memory.model, "kv_cache", memory.tokens
    one_of("cargo", cargo, CARGOS, CheckError)
    one_of("dtype", dtype, tuple(DTYPES), CheckError)
    if gpus < 1:
        raise CheckError(f"--gpus {gpus}: a number from 1 is needed")
    pair = (find(source), find(target))
    if lines := [closed_line(entry) for entry in pair if entry.weights == "closed"]:
        raise ClosedWeights("\n".join(dict.fromkeys(lines)))
    built_for = [entry.blueprint.context or UNSTATED_CONTEXT for entry in pair]
    tokens = min(built_for) if context is None else context
    if tokens < 1:
        raise CheckError(f"--context-length {tokens}: a number of tokens from 1 is needed")
    for entry in pair:
        model = entry.blueprint
        if model.position.kind == "learned" and model.context and tokens > model.context:
            raise CheckError(
                f"--context-length {tokens:,}: {entry.name} has a learned position for each of "
                f"{model.context:,} tokens and none beyond; at most {model.context:,}"
            )
    return Question(*pair, cargo, tokens, DTYPES[dtype], gpus, memory)


@dataclass(frozen=True)
class Tried:
    """What the cargo requires of a model, tried on it; `found` is empty where it was not tried, and
    `why` says why."""

    entry: Entry
    found: "tuple[Requirement, ...]" = ()
    why: str = ""


@dataclass(frozen=True)
class Answer:
    """What the architectures say, what others assert, what was measured here, and what a line
    through that makes of the prior, kept apart."""

    question: Question
    prior: Prior
    band: Band | None
    risks: tuple[Risk, ...]
    footprints: tuple[tuple[Entry, Footprint], ...]
    tried: tuple[Tried, ...]
    measured: tuple[AnyCell, ...]
    calibrated: Calibration | None


def answer(question: Question) -> Answer:
    """Work out everything that can be known without loading a weight; of a soft prompt what it
    requires is tried as well, on models that are on this machine."""
    # Not at the top: it takes what models are read with.
    from jobs.priors import vocabularies

    shared = None
    if len(question.models) > 1:
        shared = vocabularies(*map(_here, question.models))
    found = prior(question.source, question.target, shared)
    order, matrices = list(Impact), list(_matrices())
    risks = sorted((*found.risks(), *_risks(question)), key=lambda risk: order.index(risk.impact))
    return Answer(
        question,
        found,
        expected(question.cargo, found.score, question.context),
        tuple(risks),
        tuple((entry, _footprint(entry.blueprint, question)) for entry in question.models),
        tuple(_try(question)) if question.cargo == "soft_prompt" else (),
        tuple(_measured(question, matrices)),
        calibration(matrices, question.cargo),
    )


def _footprint(model: Blueprint, question: Question) -> Footprint:
    return footprint(model, dtype=question.dtype, gpus=question.gpus, tokens=question.context)


def _here(entry: Entry) -> Path | None:
    """The model's checkpoint, if it is on this machine."""
    from actors.weights import default_cache, prepared

    if not (entry.hub or entry.directory or entry.package):
        return None
    return entry.directory or prepared(spec(entry), default_cache())


def _try(question: Question) -> Iterator[Tried]:
    memory = memory_here()
    for entry in question.models:
        checkpoint = _here(entry)
        needs = footprint(entry.blueprint, dtype="float32", gpus=1, tokens=1).total
        if checkpoint is None:
            yield Tried(entry, why="its weights are not on this machine")
        elif needs > memory:
            yield Tried(entry, why=f"it takes {gib(needs)}, and this machine has {gib(memory)}")
        else:
            # Not at the top: most checks load no model.
            from actors.engine import load
            from actors.requirements import requirements

            yield Tried(entry, requirements(load(checkpoint)))


def _risks(question: Question) -> Iterator[Risk]:
    for entry in question.models:
        if _too_long(entry, question):
            yield Risk(
                Impact.HIGH,
                f"context: {question.context:,} tokens, and {entry.name} was built for "
                f"{entry.blueprint.context:,}; beyond that its positions must be scaled, or its "
                "output degrades",
            )
    if question.cargo == "kv_cache":
        yield Risk(
            Impact.MEDIUM,
            "first tokens: the target must compute its own attention sink, or nothing works",
        )
        windows = {each.blueprint.window for each in question.models}
        if windows != {None} and question.context > min(filter(None, windows)):
            yield Risk(Impact.MEDIUM, "window: one of them forgets what lies beyond its window")


def _too_long(entry: Entry, question: Question) -> bool:
    return question.context > (entry.blueprint.context or question.context)


def _matrices() -> Iterator[Matrix]:
    """Of the sweeps on this machine."""
    for path in sorted(home().glob(f"runs/*/{MATRIX_FILE}")):
        try:
            yield Matrix.from_json(path.read_bytes())
        except MatrixError:
            continue


def _measured(question: Question, matrices: Sequence[Matrix]) -> Iterator[AnyCell]:
    """What these measured of the same pair and cargo."""
    for matrix in matrices:
        for cell in matrix.cells:
            if cell.key[:3] == (question.source.name, question.target.name, question.cargo):
                yield cell


def report(answer: Answer) -> RenderableType:
    """Everything, for a terminal."""
    found, question = answer.prior, answer.question
    head = Text.assemble(
        (f"{found.source} → {found.target}, {question.cargo}\n", "bold"),
        "prior ",
        (f"{found.score:.2f}", "bold"),
        f"  tier {found.tier}  strategy {found.strategy}",
        ("   from the architectures alone, not measured", "dim"),
    )
    return Group(
        head,
        *_memory_lines(question),
        Text(f"expected retention {_band(answer)}"),
        *_calibrated(answer),
        Text(f"measured here {_cells(answer)}"),
        *_fitter_lines(question),
        _components(found),
        _risk_table(answer.risks),
        *(_tried_table(each) for each in answer.tried),
        _memory(answer),
    )


def _memory_lines(question: Question) -> Iterator[Text]:
    if (memory := question.memory) is not None:
        yield Text(
            f"memory package of {memory.tokens:,} tokens, {memory.layers} layers, made by "
            f"{memory.model}, fingerprint {memory.fingerprint[:12]}"
        )


def _fitter_lines(question: Question) -> Iterator[Text]:
    if question.cargo != "kv_cache":  # its maps are all fitted in one way
        yield Text(f"fitters to try, in order: {', '.join(fitters(question))}")
    yield Text()


def fitters(question: Question) -> tuple[str, ...]:
    """The order in which to try them."""
    same = question.source.blueprint.width == question.target.blueprint.width
    return _ORDER_SAME_WIDTH if same else _ORDER


def _band(answer: Answer) -> str:
    if answer.band is None:
        return "unknown: nobody published a figure for such a pair and this cargo"
    if any(_too_long(entry, answer.question) for entry in answer.question.models):
        return "unknown: the context is longer than one of them was built for"
    return f"{answer.band} as others assert it (level {answer.band.level}); not measured"


def _calibrated(answer: Answer) -> Iterator[Text]:
    if (by := answer.calibrated) is not None:
        yield Text(
            f"calibrated here {by.expects(answer.prior.score):.2f}, by a line through "
            f"{by.crossings} crossings of {by.models} models; of a model it has not seen it is off "
            f"by {by.error:.2f} on average, and their mean by {by.naive:.2f}"
        )


def _cells(answer: Answer) -> str:
    if not answer.measured:
        return "nothing yet: isthmus sweep measures it"
    return "\n".join(line for cell in answer.measured for line in _cell_lines(cell))


def _cell_lines(cell: AnyCell) -> Iterator[str]:
    yield f"{spelt(cell.retention)}, {cell.concept}, way {cell.way}, level {cell.level}"
    yield from (f"  {line}" for line in cell.evidence())


def _components(found: Prior) -> Table:
    table = Table(title="components of the prior", title_justify="left")
    for column in ("component", "score", "costs"):
        table.add_column(column)
    table.add_column("source against target", overflow="fold")
    for each in found.components:
        table.add_row(each.name, f"{each.score:.2f}", f"{each.cost:.3f}", each.found)
    for obstacle in found.obstacles:
        ceiling = (
            f"[red]at most {obstacle.ceiling:.2f}[/]" if obstacle.stands else "[dim]no limit[/]"
        )
        table.add_row(obstacle.name, "", ceiling, obstacle.found)
    return table


def _risk_table(risks: tuple[Risk, ...]) -> RenderableType:
    if not risks:
        return Text("risks: none that the architectures show")
    table = Table(title="risks", title_justify="left")
    table.add_column("impact")
    table.add_column("what", overflow="fold")
    styles = {Impact.HIGH: "red", Impact.MEDIUM: "yellow", Impact.LOW: "dim"}
    for risk in risks:
        table.add_row(f"[{styles[risk.impact]}]{risk.impact}[/]", risk.what)
    return table


def _tried_table(tried: Tried) -> RenderableType:
    if not tried.found:
        return Text(f"requirements: not tried on {tried.entry.name}: {tried.why}")
    title = f"requirements, tried on {tried.entry.name}"
    table = Table(title=title, title_justify="left")
    table.add_column("requirement")
    table.add_column("met")
    table.add_column("found", overflow="fold")
    for each in tried.found:
        table.add_row(each.name, "yes" if each.met else "[red]no[/]", Text(each.found))
    return table


def _memory(answer: Answer) -> Table:
    question = answer.question
    devices = "one GPU" if question.gpus == 1 else f"each of {question.gpus} GPUs"
    title = f"memory on {devices}, {question.context:,} tokens, {question.dtype} (estimates)"
    table = Table(title=title, title_justify="left")
    for column in ("model", "weights", "cache", "batch", "in all", "load"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for entry, each in answer.footprints:
        seconds = each.weights / LOAD_BYTES_PER_SECOND
        parts = (each.weights, each.cache, each.batch, each.total)
        table.add_row(entry.name, *map(gib, parts), f"{seconds:,.0f} s")
    table.caption = f"load: at {LOAD_BYTES_PER_SECOND / 1e9:g} GB/s a device, assumed"
    table.caption_justify = "left"
    return table
