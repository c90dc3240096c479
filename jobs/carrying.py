"""`isthmus carry`: a verb for each cargo. Nothing heavy is imported before one runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from jobs.help import MODEL_HELP, OutPath, example

_CARRY_STEERING = (
    "isthmus carry steering mine.gguf --from smollm2-135m-instruct --to gemma-3-270m -o out",
    "isthmus carry steering my.safetensors --site residual.17 --run RUN.yaml --from a --to b "
    "--out carried --format gguf",
)
_CARRY_CACHE = (
    "isthmus carry kv_cache memory --from smollm2-135m-instruct --to gemma-3-270m -o out --verify",
    "isthmus carry kv_cache memory --from a --to b --run RUN.yaml -o out --quality-target 0.93",
    "isthmus carry kv_cache memory --from a --to b -o out --fuse 0.1",
)
_CARRY_LORA = (
    "isthmus carry lora ./adapter --from smollm2-135m-instruct --to gemma-3-270m -o out",
    "isthmus carry lora ./adapter --from a --to b -o out --form 'Review: {}\\nIt was' --judgement",
    "isthmus carry lora ./adapter --from a --to b --run RUN.yaml -o out --read anchors --texts 500",
)
SourceModel = Annotated[str, typer.Option("--from", help=f"The model it is for. {MODEL_HELP}")]
_CARRY_PROMPT = (
    "isthmus carry soft_prompt ./prompt --from smollm2-135m-instruct --to gemma-3-270m -o out",
    "isthmus carry soft_prompt ./prompt --from a --to b -o out --fitter relative",
    "isthmus carry soft_prompt ./prompt --from a --to b -o out --latents pulled",
)
carrying = typer.Typer(
    help="Carry a cargo of your own from one model into another.",
    epilog=example(_CARRY_STEERING[0], _CARRY_CACHE[0], _CARRY_LORA[0], _CARRY_PROMPT[0]),
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@carrying.command(epilog=example(*_CARRY_STEERING))
def steering(
    file: Annotated[
        Path,
        typer.Argument(
            help="A file of steering vectors: a GGUF control vector (repeng, llama.cpp), or "
            "safetensors with keys such as layer.12 (steering-vectors) or of ours.",
            show_default=False,
        ),
    ],
    source: Annotated[str, typer.Option("--from", help=f"The model it was made for. {MODEL_HELP}")],
    target: Annotated[str, typer.Option("--to", help="The same, for the model to steer.")],
    out: OutPath,
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run file: its models by name, its tracked maps, its anchors. "
            "configs/demo.yaml if left out.",
            show_default=False,
        ),
    ] = None,
    concept: Annotated[
        str | None,
        typer.Option(
            help="The concept whose tracked map is preferred; what the file names if left out.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            help="The one site to carry, or where the vector belongs, if the file does not say.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="gguf, isthmus or safetensors; that of the file if left out.", show_default=False
        ),
    ] = None,
) -> None:
    """Carry a steering vector of your own into another model.

    By a tracked map between the two, if there is one; else by one that is fitted, as a sweep does.
    """
    from jobs.carry import Wish, carry_steering
    from jobs.progress import Reporter

    wish = Wish(file, source, target, out, run, concept, site, format)
    done, told = carry_steering(wish, Reporter()), Console()
    for each in done.bridges:
        by = f"{each.fitter}, held-out R² {each.held_out_r2:.2f}, {each.tracked or 'not tracked'}"
        told.print(f"carried  {each.source_site} to {each.target_site} ({by})", soft_wrap=True)
    if done.left:
        told.print(f"left     {', '.join(done.left)} (no map leads from there yet)", soft_wrap=True)
    told.print(f"written  {out.absolute()} (README.txt says how to use it)", soft_wrap=True)


@carrying.command(name="kv_cache", epilog=example(*_CARRY_CACHE))
def kv_cache(
    package: Annotated[
        Path,
        typer.Argument(
            help="A memory package: what isthmus remember wrote of a text.", show_default=False
        ),
    ],
    source: Annotated[str, typer.Option("--from", help=f"The model that read it. {MODEL_HELP}")],
    target: Annotated[str, typer.Option("--to", help="The same, for the model to go on from it.")],
    out: OutPath,
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run file with a section kv_cache: its models by name, the texts that its maps "
            "are fitted to. configs/caches.yaml if left out.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Let the target read the text too, and say how well it foresees what it would "
            "say itself: the retention of this very cache.",
        ),
    ] = False,
    quality: Annotated[
        float | None,
        typer.Option(
            "--quality-target",
            help="The retention to reach, as 0.93: the target reads as few of the tokens again as "
            "that takes, the last ones and a few of the first.",
            show_default=False,
        ),
    ] = None,
    fuse: Annotated[
        float | None,
        typer.Option(
            help="Another mode: the target reads the whole text too, and each of its own cells is "
            "moved this share of the way to the carried one, as 0.1.",
            show_default=False,
        ),
    ] = None,
    small: Annotated[
        bool,
        typer.Option(
            "--small",
            help="By the run's small map (kv_cache.small), trained where the run trains it.",
        ),
    ] = False,
) -> None:
    """Carry what one model has read into another, which then goes on from it.

    By a map that a sweep has left, or one that is fitted now, which takes some minutes.
    """
    from jobs.carry_cache import CacheWish, carry_cache
    from jobs.progress import Reporter

    wish = CacheWish(package, source, target, out, run, verify, quality, fuse, small)
    done, told = carry_cache(wish, Reporter()), Console()
    itself = done.tokens if fuse is not None else done.own + done.again
    how = "carried " if fuse is None else f"fused, {fuse:.0%} of the way:"
    told.print(
        f"{how} {done.tokens - done.own - done.again:,} of {done.tokens:,} tokens "
        f"(held-out R² {done.held_out_r2:.2f}); read by {target} itself: {itself:,}",
        soft_wrap=True,
    )
    if verify or quality is not None:
        kept = done.retention
        said = (
            "undefined: what comes next hardly depends on this text"
            if kept is None
            else f"{kept.value:.2f} ({kept.low:.2f} to {kept.high:.2f}) of this cache"
        )
        told.print(f"retention {said}", soft_wrap=True)
    told.print(f"written  {out.absolute()} (README.txt says how to use it)", soft_wrap=True)


@carrying.command(epilog=example(*_CARRY_LORA))
def lora(
    adapter: Annotated[
        Path,
        typer.Argument(
            help="A PEFT directory: adapter_config.json and adapter_model.safetensors.",
            show_default=False,
        ),
    ],
    source: SourceModel,
    target: Annotated[str, typer.Option("--to", help="The same, for the model to adapt.")],
    out: OutPath,
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run file with a section lora: its models by name, its anchors, and how an "
            "adapter is refit. configs/adapters/demo.yaml if left out.",
            show_default=False,
        ),
    ] = None,
    read: Annotated[
        Literal["own", "anchors"],
        typer.Option(
            help="What the target learns on: texts that the adapted source writes of its own, or "
            "the anchors of the run."
        ),
    ] = "own",
    texts: Annotated[
        int | None,
        typer.Option(help="How many of these; lora.texts if left out.", show_default=False),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="How the skill is asked for, with {} where words go, and \\n for a new line: own "
            "texts come after it. A text of its own if left out.",
            show_default=False,
        ),
    ] = "",
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many tokens of its own the source writes a text; 32 if left out, and 1 of a "
            "judgement.",
            show_default=False,
        ),
    ] = None,
    judgement: Annotated[
        bool,
        typer.Option(
            "--judgement",
            help="The adapter teaches to judge what stands in the form, by one of few words: what "
            "the adapted source says is learned, not what its adapter changes.",
        ),
    ] = False,
    how: Annotated[
        Literal["refit", "solved"],
        typer.Option(
            help="Whether the target is trained on these texts, or its adapter is solved for in "
            "closed form, in three steps: nothing is trained, and less of the skill survives."
        ),
    ] = "refit",
    any_base: Annotated[
        bool,
        typer.Option(
            "--any-base", help="Take it for one of the source though it names another model."
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Carry it though too few layers of the two are alike."),
    ] = False,
) -> None:
    """Carry a LoRA adapter into another model, as an ordinary PEFT adapter.

    The target learns to change what it says as the adapter changes what the source says: without a
    lesson of the skill. That takes minutes.
    """
    from jobs.carry_lora import AdapterWish, carry_adapter
    from jobs.progress import Reporter

    wish = AdapterWish(
        adapter,
        source,
        target,
        out,
        run,
        read=read,
        texts=texts,
        form=form.replace("\\n", "\n"),
        tokens=tokens,
        judgement=judgement,
        how=how,
        any_base=any_base,
        forced=force,
    )
    done, told = carry_adapter(wish, Reporter()), Console()
    covered, taken = done.covered, 1 - done.after / done.before
    alone = ", ".join(map(str, covered.alone)) or "none"
    told.print(
        f"layers   of {target} with a partner in {source}: {covered.above_null:.0%} above chance "
        f"(CKA above 0.7: {covered.standardised:.0%}, of raw features {covered.raw:.0%}); without "
        f"one: {alone}",
        soft_wrap=True,
    )
    told.print(
        f"{how:<8} rank {done.rank}, {done.tokens:,} tokens read in {done.seconds:,.0f} s; of what "
        f"the adapter changes on held-out texts (KL {done.before:.3f} nats per word) {taken:.0%} "
        "is taken over",
        soft_wrap=True,
    )
    told.print(f"written  {out.absolute()} (README.txt says how to use it)", soft_wrap=True)


@carrying.command(name="soft_prompt", epilog=example(*_CARRY_PROMPT))
def soft_prompt(
    prompt: Annotated[
        Path,
        typer.Argument(
            help="A PEFT directory of prompt tuning: adapter_config.json and "
            "adapter_model.safetensors.",
            show_default=False,
        ),
    ],
    source: SourceModel,
    target: Annotated[str, typer.Option("--to", help="The same, for the model to read it.")],
    out: OutPath,
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run file: its models by name, and how they are loaded. "
            "configs/adapters/demo.yaml if left out.",
            show_default=False,
        ),
    ] = None,
    fitter: Annotated[
        str, typer.Option(help="What fits the map between embeddings: ridge, relative, procrustes.")
    ] = "ridge",
    latents: Annotated[
        Path | None,
        typer.Option(
            help="A directory that isthmus pull brought, of latents between the two: they carry "
            "the prompt in place of a map.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Carry a soft prompt into another model, as an ordinary PEFT prompt; nothing is trained.

    A map between the embeddings of tokens that both vocabularies have carries its rows; or the
    latents of a run do, made of what the source holds of the prompt.
    """
    from jobs.carry_prompt import PromptWish, carry_prompt
    from jobs.progress import Reporter

    wish = PromptWish(prompt, source, target, out, run, fitter, latents)
    done, told = carry_prompt(wish, Reporter()), Console()
    told.print(done.by, soft_wrap=True)
    told.print(f"written  {out.absolute()} (README.txt says how to use it)", soft_wrap=True)
