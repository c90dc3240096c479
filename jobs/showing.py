"""Verbs that show what is expected and what was measured: prior, report, route."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.config import home
from jobs.help import MODEL_HELP, example

showing = typer.Typer()


@showing.command(
    epilog=example(
        "isthmus prior --to prior.png",
        "isthmus prior llama-3-8b mistral-7b gemma-7b solar-10.7b --to four.svg",
    )
)
def prior(
    to: Annotated[
        Path, typer.Option(help="The picture to write: .png, .svg or .pdf.", show_default=False)
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(help=MODEL_HELP + "  [default: the catalog]", show_default=False),
    ] = None,
) -> None:
    """Draw the prior over every ordered pair of models: expectations, not measurements."""
    from jobs.prior import draw

    draw(models or [], to)
    Console().print(f"picture  {to.absolute()}", soft_wrap=True)


@showing.command(
    epilog=example(
        "isthmus report ~/isthmus/runs/demo/matrix.json",
        "isthmus report matrix.json --to page.html",
        "isthmus report matrix.json --figures figures",
    )
)
def report(
    matrix: Annotated[
        Path, typer.Argument(help="A matrix.json that a sweep wrote.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="The page to write.  [default: index.html beside it]", show_default=False
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="A directory for the same pictures one by one, each as SVG and as PNG.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw the page of a matrix again, and print the matrix."""
    from evaluation.figures import write_figures
    from jobs.report import draw
    from jobs.table import matrix_lines, matrix_table

    found, page = draw(matrix, to)
    out = Console()
    out.print(matrix_table(found))
    for line in matrix_lines(found):
        out.print(line, soft_wrap=True)
    out.print(f"page     {page.as_uri()}", soft_wrap=True)
    if figures is not None:
        many = write_figures(found, figures)
        out.print(f"figures  {len(many)} in {figures.absolute()}", soft_wrap=True)


@showing.command(
    epilog=example(
        "isthmus route gemma-3-270m smollm2-permuted",
        "isthmus route gemma-3-270m smollm2-permuted --cargo lora --from matrix.json",
    )
)
def route(
    source: Annotated[str, typer.Argument(help="The model it comes from.", show_default=False)],
    target: Annotated[str, typer.Argument(help="The model it goes to.", show_default=False)],
    cargo: Annotated[str, typer.Option(help="What goes: steering or lora.")] = "steering",
    matrix: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A matrix.json, or a directory of runs.  [default: the runs of this machine]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what goes better through other models: the direct way, the best path, and others.

    All of them were measured on test by a sweep whose run file has a section `routes`. A path is
    recommended only where the whole interval of its gain is above zero.
    """
    from jobs.route import find_routes, routes_table

    Console().print(routes_table(*find_routes(source, target, cargo, matrix or home() / "runs")))
