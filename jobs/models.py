"""`isthmus models`: the models of a run file, before anything is spent on them."""

from rich.table import Table

from actors.catalog import ModelFacts, ModelSpec
from actors.weights import default_cache, facts, prepare, prepared
from jobs.config import RunFile
from jobs.progress import Reporter


def models_table(run: RunFile, make_ready: bool, reporter: Reporter) -> Table:
    """One row for each model. With `make_ready`, weights are fetched and converted first.

    Raises:
        ModelError: a source is missing, broken or not supported.
    """
    table = Table(title=f"{run.name}: models", title_justify="left")
    for column in ("model", "source"):
        table.add_column(column, overflow="fold")
    for column in ("family", "parameters", "layers", "width", "heads", "vocabulary", "fingerprint"):
        table.add_column(column)
    for spec in run.models:
        table.add_row(spec.name, spec.source_line(), *_facts(spec, make_ready, reporter))
    return table


def _facts(spec: ModelSpec, make_ready: bool, reporter: Reporter) -> tuple[str, ...]:
    if make_ready:
        with reporter.stage(f"preparing {spec.name}"):
            prepare(spec, default_cache(), reporter.note)
    checkpoint = prepared(spec, default_cache())
    if checkpoint is None:
        return ("[dim]not here yet: --prepare[/]",)
    return _columns(facts(checkpoint, spec.name, spec.dtype))


def _columns(known: ModelFacts) -> tuple[str, ...]:
    heads = f"{known.heads} / {known.kv_heads} KV of {known.head_width}"
    return (
        known.family,
        f"{known.parameters / 1e6:,.0f} M",
        str(known.layers),
        str(known.width),
        heads,
        f"{known.vocabulary:,}",
        known.fingerprint[:12],
    )
