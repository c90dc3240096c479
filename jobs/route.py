"""`isthmus route`: what a sweep found of the way through other models."""

from pathlib import Path

from rich.table import Table

from evaluation.matrix import Matrix, MatrixError
from evaluation.routes import Route
from evaluation.wording import spelt, words
from jobs.names import MATRIX_FILE


def find_routes(source: str, target: str, cargo: str, runs: Path) -> tuple[Matrix, list[Route]]:
    """The routes between two models of the newest sweep that has any, one for each concept.

    Args:
        runs: a `matrix.json`, or the directory of all runs.

    Raises:
        MatrixError: no sweep here has one; the line says what there is.
    """
    files = [runs] if runs.is_file() else sorted(runs.glob(f"*/{MATRIX_FILE}"), key=_age)
    known = set()
    for file in files:
        matrix = Matrix.from_json(file.read_bytes())
        found = [of for of in matrix.routes if of.key[:3] == (source, target, cargo)]
        if found:
            return matrix, found
        known |= {f"{of.source} -> {of.target} ({of.cargo})" for of in matrix.routes}
    raise MatrixError(
        f"no route of {cargo} from {source} to {target} in {runs}; there is "
        f"{', '.join(sorted(known)) or 'none at all'}: sweep a run file with a section routes"
    )


def _age(file: Path) -> float:
    return -file.stat().st_mtime


def routes_table(matrix: Matrix, routes: list[Route]) -> Table:
    """The direct way, the best path and every other one, with intervals."""
    first = routes[0]
    table = Table(
        title=f"{matrix.run}: {words(first.cargo)}, {first.source} → {first.target}",
        title_justify="left",
    )
    for column in ("concept", "way", "kept of the native effect", "more than direct"):
        table.add_column(column, overflow="fold")
    for of in routes:
        worth = f"[bold green]{of.verdict}[/]" if of.recommended else of.verdict
        table.add_row(words(of.concept), "direct", spelt(of.direct), "")
        path = " → ".join(of.path)
        told = f"{spelt(of.routed)}\nby its hops {of.expected:.2f}"
        table.add_row("", path, told, f"{spelt(of.gain)}\n{worth}")
        for other in of.others:
            table.add_row("", other.name, spelt(other.retention), "")
    return table
