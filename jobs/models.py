"""`isthmus models`: the catalog, one model of it, or the models of a run file."""

from itertools import zip_longest
from pathlib import Path

from rich.table import Table

from actors.catalog import Entry, ModelError, ModelFacts, ModelSpec
from actors.fleet import fleet
from actors.weights import default_cache, facts, prepare, prepared
from jobs.config import RunFile
from jobs.names import one_of
from jobs.progress import Reporter

FACTS = (
    "source",
    "family",
    "parameters",
    "layers",
    "width",
    "heads",
    "vocabulary",
    "precision",
    "fingerprint",
)


def models_table(run: RunFile, make_ready: bool, reporter: Reporter) -> Table:
    """One column for each model. With `make_ready`, weights are fetched and converted first.

    Raises:
        ModelError: a source is missing, broken or not supported.
    """
    table = Table("", title=f"{run.name}: models", title_justify="left")
    columns = []
    for spec in run.models:
        table.add_column(spec.name, overflow="fold")
        columns.append([spec.source_line(), *_facts(spec, make_ready, reporter)])
    for name, *row in zip_longest(FACTS, *columns, fillvalue=""):
        table.add_row(name, *row)
    return table


def checkpoint(run: RunFile, name: str, make_ready: bool, reporter: Reporter) -> Path:
    """Where the checkpoint of a run's model is, with `make_ready` after it was fetched and
    converted.

    Raises:
        ModelError: the run has no such model, or it is not here; its source is missing, broken or
            not supported.
    """
    specs = {spec.name: spec for spec in run.models}
    one_of("model", name, list(specs), ModelError)
    found = _checkpoint(specs[name], make_ready, reporter)
    if found is None:
        raise ModelError(f"model {name}: not here yet; --prepare fetches and converts it")
    return found


def _checkpoint(spec: ModelSpec, make_ready: bool, reporter: Reporter) -> Path | None:
    if make_ready:
        with reporter.stage(f"preparing {spec.name}"):
            prepare(spec, default_cache(), reporter.note)
    return prepared(spec, default_cache())


def _facts(spec: ModelSpec, make_ready: bool, reporter: Reporter) -> tuple[str, ...]:
    found = _checkpoint(spec, make_ready, reporter)
    if found is None:
        return ("[dim]not here yet: --prepare[/]",)
    return _columns(facts(found, spec.name, spec.dtype))


def _columns(known: ModelFacts) -> tuple[str, ...]:
    heads = f"{known.heads} / {known.kv_heads} KV of {known.head_width}"
    return (
        known.family,
        f"{known.parameters / 1e6:,.0f} M",
        str(known.layers),
        str(known.width),
        heads,
        f"{known.vocabulary:,}",
        known.dtype,
        known.fingerprint[:12],
    )


def catalog_table() -> Table:
    """Every model of the catalog, a line each."""
    table = Table(title="the catalog", title_justify="left", box=None, collapse_padding=True)
    table.add_column("model", no_wrap=True)
    for column in ("size", "layers", "width", "heads/KV", "vocab", "context"):
        table.add_column(column, justify="right", no_wrap=True)
    table.caption = "isthmus models NAME says all of one"
    table.caption_justify = "left"
    for entry in fleet().values():
        if entry.weights == "closed":
            table.add_row(f"[dim]{entry.name}[/]", "[dim]closed[/]")
            continue
        facts = entry.blueprint
        table.add_row(
            entry.name,
            _count(facts.parameters),
            str(facts.layers),
            str(facts.width),
            f"{facts.heads}/{facts.kv_heads}×{facts.head_width}",
            f"{facts.vocabulary / 1000:.0f} k",
            f"{facts.context / 1024:.0f} Ki" if facts.context else "?",
        )
    return table


def entry_table(entry: Entry) -> Table:
    """Everything that is known of one model. Raises ClosedWeights where that is nothing."""
    table = Table(title=entry.name, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in _entry_facts(entry):
        table.add_row(name, fact)
    return table


def _entry_facts(entry: Entry) -> list[tuple[str, str]]:
    facts = entry.blueprint
    span = f"{facts.sliding_layers} of {facts.layers} layers see {facts.window} tokens back"
    experts = facts.experts
    sparse = (
        f"{experts.active} of {experts.count}, {experts.width:,} neurons each" if experts else ""
    )
    known = entry.tokenizer
    tokenizer = f"{known.name} ({known.kind})" if known else "not said"
    heads = f"{facts.attention}: {facts.heads} heads, {facts.kv_heads} KV, {facts.head_width} wide"
    active = f" ({_count(facts.active_parameters)} for a token)" if experts else ""
    return [
        ("hub", entry.hub or "not said"),
        ("series", entry.series or "not said"),
        ("licence", entry.licence or "not said"),
        ("languages", ", ".join(entry.languages or ()) or "not said"),
        ("family", facts.family),
        ("parameters", f"{facts.parameters:,}{active}"),
        ("layers", str(facts.layers) + _upscaled(entry)),
        ("width", f"{facts.width:,}, MLP {facts.mlp_width:,}"),
        ("attention", heads + (", keys normalised" if facts.key_norm else "")),
        ("attention span", span if facts.window else "all tokens, in every layer"),
        ("positions", str(facts.position)),
        ("context", f"{facts.context:,}" if facts.context else "not said"),
        ("norm", facts.norm_line),
        ("activation", facts.activation),
        ("experts", sparse or "none"),
        ("vocabulary", f"{facts.vocabulary:,}" + (", tied" if facts.tied else "")),
        ("tokenizer", tokenizer),
        ("precision", facts.dtype),
    ]


def _upscaled(entry: Entry) -> str:
    depth = entry.depth_upscaled_from
    return f", up-scaled from {depth}" if depth else ""


def _count(number: int) -> str:
    return f"{number / 1e9:,.1f} B" if number >= 1e9 else f"{number / 1e6:,.0f} M"
