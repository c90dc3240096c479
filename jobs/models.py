"""`isthmus models`: the models of a run file, before anything is spent on them."""

from itertools import zip_longest

from rich.table import Table

from actors.catalog import ModelFacts, ModelSpec
from actors.weights import default_cache, facts, prepare, prepared
from jobs.config import RunFile
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
        known.dtype,
        known.fingerprint[:12],
    )
