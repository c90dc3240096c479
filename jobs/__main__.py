"""The command line: `python -m jobs`, or `isthmus`.

Nothing heavy is imported before a verb runs.
"""

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from actors.catalog import ClosedWeights
from actors.fleet import find
from jobs.carrying import carrying
from jobs.config import ConfigError, RunFile, home, read_run_file, tracking_uri
from jobs.help import MODEL_HELP, OutPath, example
from jobs.showing import showing

app = typer.Typer(
    help="Measure what can cross from one language model into another, and carry it.\n\n"
    "Exit codes: 0 done, 2 something to mend (one line says what), 3 a model's weights are not "
    "published, 130 stopped.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
USER_ERROR = 2
CLOSED_WEIGHTS = 3
INTERRUPTED = 130

_TRACKED = "smollm2-135m-instruct--gemma-3-270m--steering--sentiment"
RunPath = Annotated[Path, typer.Argument(help="The run file.", show_default=False)]


app.add_typer(carrying, name="carry")
app.add_typer(showing)


@app.command(
    epilog=example(
        "isthmus sweep configs/demo.yaml",
        "ray job submit --working-dir . -- python -m jobs sweep configs/demo.yaml",
    )
)
def sweep(run: RunPath) -> None:
    """Run a sweep: every ordered pair of models, measured, drawn and tracked.

    Started again after Ctrl-C or a kill, it goes on where it was.
    """
    settings = _read(run)
    from jobs.progress import Reporter
    from jobs.sweep import sweep as run_sweep
    from jobs.table import matrix_lines, matrix_table

    swept = run_sweep(settings, Reporter())
    out = Console()
    out.print(matrix_table(swept.matrix))
    for line in matrix_lines(swept.matrix):
        out.print(line, soft_wrap=True)
    out.print(f"page     {swept.page.as_uri()}", soft_wrap=True)
    out.print(f"tracked  {swept.tracked.link}", soft_wrap=True)
    for name in swept.tracked.versions:
        out.print(f"pull     isthmus pull {name}@champion --to {name}", soft_wrap=True)


@app.command(
    epilog=example(
        "isthmus models",
        "isthmus models llama-3-8b",
        "isthmus models configs/demo.yaml",
        "isthmus models configs/demo.yaml --prepare",
        "isthmus models configs/demo.yaml --where gemma-3-270m",
    )
)
def models(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A run file, or a model: a name, a hub id or a directory.  [default: the catalog]",
            show_default=False,
        ),
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Fetch and convert the weights of a run's models.")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(help="Say only where the checkpoint of this model of a run is, on one line."),
    ] = None,
) -> None:
    """List the catalog, say all that is known of one model, or look at the models of a run file.

    Of a run's models: where they come from, whether they are here, what they are.
    """
    from jobs.models import catalog_table, checkpoint, entry_table, models_table
    from jobs.progress import Reporter

    out = Console()
    if what is not None and what.endswith((".yaml", ".yml")):
        run = _read(Path(what))
        if where is None:
            out.print(models_table(run, prepare, Reporter()))
        else:
            print(checkpoint(run, where, prepare, Reporter()))
        return
    if prepare or where:
        _stop("--prepare and --where go with a run file: isthmus models RUN.yaml --prepare")
    out.print(catalog_table() if what is None else entry_table(find(what)))


@app.command(
    epilog=example("isthmus plan configs/demo.yaml", "isthmus plan configs/demo.yaml --probe")
)
def plan(
    run: RunPath,
    probe: Annotated[
        bool, typer.Option("--probe", help="Load each model here and time one batch.")
    ] = False,
) -> None:
    """Say what a run will load and read, how large, how long and at what price."""
    settings = _read(run)
    from jobs.plan import plan as make_plan
    from jobs.plan_table import plan_tables
    from jobs.progress import Reporter

    Console().print(plan_tables(make_plan(settings, probe, Reporter())))


@app.command(
    epilog=example(
        "isthmus shards llama-3-70b --ranks 8",
        "isthmus shards mixtral-8x7b --ranks 4 --rank 0",
        "isthmus shards ./my-checkpoint --ranks 2 --to slices.json",
    )
)
def shards(
    model: Annotated[str, typer.Argument(help=MODEL_HELP, show_default=False)],
    ranks: Annotated[int, typer.Option(help="Processes (GPUs) that the model is cut over.")],
    rank: Annotated[
        int | None, typer.Option(help="Show every slice that this rank reads.", show_default=False)
    ] = None,
    dtype: Annotated[str, typer.Option(help="What it computes in: bf16 or fp32.")] = "bf16",
    to: Annotated[
        Path | None, typer.Option(help="Write every slice as JSON.", show_default=False)
    ] = None,
) -> None:
    """Say what each rank of a model that is cut up holds, and which slices of files it reads.

    Worked out by the code that loads the model, without its weights. Where the checkpoint is not
    here, its files are laid out as transformers would write them.
    """
    if rank is not None and not 0 <= rank < ranks:
        _stop(f"--rank {rank}: there are ranks 0 to {ranks - 1}")
    from jobs.shards import plan_shards, ranks_table, slice_lines, write_shards

    plans = plan_shards(model, ranks, dtype)
    out = Console()
    out.print(ranks_table(f"{model} over {ranks} ranks, {dtype}", plans))
    for line in [] if rank is None else slice_lines(plans[rank]):
        out.print(line, soft_wrap=True, markup=False, highlight=False)
    if to is not None:
        write_shards(plans, to)
        out.print(f"slices   {to.absolute()}", soft_wrap=True)


@app.command(
    epilog=example(
        "isthmus check llama-3-8b mistral-7b --cargo kv_cache --context-length 128000 --gpus 4",
        "isthmus check my-model.yaml organisation/name",
        "isthmus check memory/ gemma-3-270m",
    )
)
def check(
    source: Annotated[
        str, typer.Argument(help=MODEL_HELP + " Or a memory package.", show_default=False)
    ],
    target: Annotated[str, typer.Argument(help="A model, the target.", show_default=False)],
    cargo: Annotated[
        str, typer.Option(help="steering, kv_cache, lora or soft_prompt.")
    ] = "steering",
    context_length: Annotated[
        int | None,
        typer.Option(help="Tokens.  [default: the shorter context of the two]", show_default=False),
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp16, bf16 or fp32.")] = "bf16",
    gpus: Annotated[int, typer.Option(help="GPUs that each model is spread over.")] = 1,
) -> None:
    """Say what to expect of a pair from its architectures alone: a prior, not a measurement.

    Score, tier, risks, memory and load time; no weight is read, but that what a soft_prompt
    requires is tried on models that are on this machine. What sweeps on this machine measured of
    the pair is shown beside it.
    """
    from jobs.check import answer, ask
    from jobs.check import report as checked

    question = ask(source, target, cargo, context_length, dtype, gpus)
    Console().print(checked(answer(question)))


@app.command(
    epilog=example(
        f"isthmus pull {_TRACKED}@champion --to carried",
        f"isthmus pull {_TRACKED}@2 --to carried --uri http://tracker:5000",
        "isthmus pull --from smollm2-135m-instruct --into gemma-3-270m --cargo lora --to carried",
    )
)
def pull(
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            help="NAME@ALIAS or NAME@VERSION of a registered map.  [default: the best of what is "
            "asked for]",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="A source.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--into", help="A target.", show_default=False)
    ] = None,
    cargo: Annotated[str | None, typer.Option(help="A cargo.", show_default=False)] = None,
    concept: Annotated[
        str | None, typer.Option(help="A concept or skill.", show_default=False)
    ] = None,
    to: Annotated[Path, typer.Option(help="The directory to make.", show_default=False)],
    uri: Annotated[
        str | None,
        typer.Option(
            help="The MLflow store.  [default: the one in $ISTHMUS_HOME or ~/isthmus]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Fetch a tracked map: plain safetensors and JSON, usable without this project.

    By its name, or the one that comes nearest to the native effect, where that is real, of all that
    go from a source into a target, are of a cargo, and of a concept.
    """
    store = uri or tracking_uri(home())
    asked = {"source": source, "target": target, "cargo": cargo, "concept": concept}
    given = {name: value for name, value in asked.items() if value is not None}
    if (model is None) != bool(given):
        _stop("pull: give NAME@ALIAS or NAME@VERSION, or else --from, --into, --cargo, --concept")
    if model is None:
        from evaluation.tracking import best

        name, which = best(store, given)
        Console().print(f"best     {name}@{which}", soft_wrap=True)
    else:
        name, at, which = model.partition("@")
        if not (name and at and which):
            example = f"{model.strip('@') or 'NAME'}@champion"
            _stop(f"{model!r}: write NAME@ALIAS or NAME@VERSION, for example {example}")
    from evaluation.tracking import pull as fetch

    where = fetch(name, which, uri=store, to=to)
    Console().print(f"pulled   {where.absolute()} (README.txt says how to use it)", soft_wrap=True)


@app.command(epilog=example("isthmus remember smollm2-135m-instruct notes.txt -o memory"))
def remember(
    model: Annotated[str, typer.Argument(help=MODEL_HELP, show_default=False)],
    file: Annotated[Path, typer.Argument(help="A text, in UTF-8.", show_default=False)],
    out: OutPath,
) -> None:
    """Read a text with a model, and keep what it caches: a memory package.

    `isthmus check PACKAGE MODEL` says what to expect of another model that takes it up.
    """
    from jobs.progress import Reporter
    from jobs.remember import remember as keep

    kept, told = keep(model, file, out, Reporter()), Console()
    layers = len(kept.read.cells) // 2
    told.print(f"read     {len(kept.read.ids):,} tokens, {layers} layers", soft_wrap=True)
    told.print(f"written  {out.absolute()}", soft_wrap=True)


def _read(path: Path) -> RunFile:
    try:
        return read_run_file(path)
    except ConfigError as error:
        _stop(str(error))


def _stop(message: str, code: int = USER_ERROR) -> NoReturn:
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code)


def main() -> None:
    """Run a verb. What a user can mend ends with one line and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app()
    except SystemExit as ended:
        # Typer makes this of Ctrl-C, and says nothing.
        if ended.code == INTERRUPTED:
            Console(stderr=True).print("stopped; run the same command to go on", style="yellow")
        raise
    except ClosedWeights as error:
        _stop(str(error), CLOSED_WEIGHTS)
    except (ValueError, RuntimeError) as error:
        if type(error).__module__.partition(".")[0] not in _ROOMS:
            raise
        _stop(str(error))


_ROOMS = ("actors", "alignment", "cluster", "evaluation", "jobs")

if __name__ == "__main__":
    main()
