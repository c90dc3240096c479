"""What holds for the whole house: plain names that are ours alone, small rooms, no pickles."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from cluster.session import ROOMS

ROOT = Path(__file__).parents[1]
LINES = 400
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
OTHERS = sorted(path for part in ("tests", "benchmarks") for path in (ROOT / part).rglob("*.py"))


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_else_that_is_installed_provides_our_names(room: str) -> None:
    assert set(packages_distributions().get(room, ["isthmus"])) == {"isthmus"}


def test_the_project_ships_exactly_the_packages_of_its_rooms() -> None:
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    tool = project()["tool"]
    assert isinstance(tool, dict)
    assert tool["setuptools"]["packages"] == sorted(on_disk)
    # A folder of modules without its __init__.py would be left behind.
    assert {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES} == on_disk


def test_no_package_lies_beside_the_rooms() -> None:
    roots = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert roots - {"benchmarks"} == set(ROOMS)


@pytest.mark.parametrize("path", [*MODULES, *OTHERS], ids=named)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES


def swallowing(tree: ast.AST) -> Iterator[str]:
    """Handlers of every error, but those that clear up and raise it again."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {"" if kind is None else ast.unparse(kind) for kind in kinds}
        last = node.body[-1]
        raised_again = isinstance(last, ast.Raise) and last.exc is None
        if names & {"", "Exception"} or (names & {"BaseException"} and not raised_again):
            yield f"line {node.lineno}"


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_error_is_swallowed_and_nothing_is_pickled(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not list(swallowing(tree))
    pickles = re.compile(r"(\w+\.)*(c?loud)?(pickle|dill|joblib|shelve|marshal)(\.|$)")
    assert not [name for name in imported(tree) if pickles.match(name)]
    forbidden = ("torch.load", "torch.save", "np.load", "np.save", "eval", "exec")
    assert not [name for name in called(tree) if name in forbidden]
    assert not [name for name in imported(tree) if name in ("torch.load", "torch.save")]
