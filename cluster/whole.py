"""Directories that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A new directory to fill, which is at `path` once that went well.

    What is at `path` already may be an empty directory. Raises OSError where it cannot be made.
    """
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{path.name}.") as aside:
        filled = Path(aside) / "whole"
        filled.mkdir()
        yield filled
        filled.replace(path)
