"""Names of files, and names that users write: which there are, and the nearest ones to others."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MATRIX_FILE = "matrix.json"  # of a run, in its folder


def file_names(folder: str, ending: str = ".py") -> tuple[str, ...]:
    """The names of the files of a folder of the project, without their ending."""
    files = (ROOT / folder).glob(f"*{ending}")
    return tuple(sorted(file.stem for file in files if file.stem != "__init__"))


def one_of(what: str, given: str, allowed: Sequence[str], error: type[ValueError]) -> None:
    """Raise `error` unless `given` is allowed; the line names the nearest, and all there are."""
    if given in allowed:
        return
    near = get_close_matches(given, allowed, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise error(f"no {what} {given!r}; {hint}allowed: {', '.join(allowed)}")
