"""What several verbs ask for, and what their help says."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "A name of the catalog, a hub id, a checkpoint directory or a YAML file."
OutPath = Annotated[Path, typer.Option("--out", "-o", help="The directory to make.")]


def example(*lines: str) -> str:
    """The end of a verb's help: command lines."""
    return "[bold]Examples[/]\n\n" + "\n\n".join(lines)
