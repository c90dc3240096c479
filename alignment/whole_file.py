"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteError(ValueError):
    """A file that cannot be written; one line."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write, which is at `path` once that went well; until then what was there stays.

    It has the name of `path`. Its directory is made where there is none.

    Raises:
        WriteError: it cannot be written there.
    """
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
            file = Path(aside) / path.name
            yield file
            with file.open("rb") as written:
                os.fsync(written.fileno())
            file.replace(path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}") from error
