"""`isthmus report`: the page of a matrix, drawn again."""

from pathlib import Path

from evaluation.matrix import Matrix, MatrixError
from evaluation.report import write_page


def draw(path: Path, to: Path | None) -> tuple[Matrix, Path]:
    """Read a matrix and write its page, by default beside it.

    Raises:
        MatrixError: no such file, or not a matrix.
    """
    try:
        matrix = Matrix.from_json(path.read_bytes())
    except OSError as error:
        raise MatrixError(f"{path}: cannot be read: {error.strerror}") from error
    page = (to or path.with_name("index.html")).absolute()
    write_page(matrix, page)
    return matrix, page
