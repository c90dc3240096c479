"""What the help of several verbs says."""

MODEL_HELP = "A name of the catalog, a hub id, a checkpoint directory or a YAML file."


def example(*lines: str) -> str:
    """The end of a verb's help: command lines."""
    return "[bold]Examples[/]\n\n" + "\n\n".join(lines)
