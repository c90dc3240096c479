"""A model's source is said once, plainly, and a wrong one is answered with what is allowed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.catalog import ModelSpec

SHA256 = "0" * 64


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"hub": "maker/model"}, "hub maker/model"),
        ({"hub": "maker/model", "revision": "v1"}, "hub maker/model at v1"),
        ({"directory": "/models/one"}, "directory /models/one"),
        ({"gguf": "/models/one.gguf", "sha256": SHA256}, "GGUF file /models/one.gguf"),
        ({"package": "maker/one.gguf"}, "package maker/one.gguf"),
        ({"package": ["maker/a.0", "maker/a.1"]}, "package maker/a.0 and 1 more parts"),
    ],
)
def test_each_source_is_told_in_a_line_and_survives_json(source: dict[str, Any], line: str) -> None:
    spec = ModelSpec(name="one", **source)
    assert spec.source_line() == line
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert hash(ModelSpec(name="one", **source)) == hash(spec)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "exactly one of hub, directory, gguf, package, derived is needed, found none"),
        ({"hub": "a/b", "gguf": "x"}, "found hub and gguf"),
        ({"hub": "b"}, "not organisation/name"),
        ({"gguf": "x", "revision": "v1"}, "revision goes with hub only"),
        ({"hub": "a/b", "sha256": SHA256}, "sha256 goes with gguf or package only"),
        ({"package": "one.gguf"}, "not import_package/path/to/file"),
        ({"package": []}, "package lists no file"),
        ({"gguf": "x", "sha256": "abc"}, "sha256"),
        ({"gguf": "x", "dtype": "float16"}, "'float32' or 'bfloat16'"),
        ({"gguf": "x", "url": "y"}, "Extra inputs are not permitted"),
        ({"gguf": "x", "name": "Two Words"}, "name"),
    ],
)
def test_a_wrong_source_is_refused_with_what_is_allowed(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSpec.model_validate({"name": "one"} | wrong)


def test_a_place_on_this_machine_is_that_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert ModelSpec(name="one", directory=Path("mine")).directory == tmp_path / "mine"
    assert ModelSpec(name="one", gguf=Path("~/one.gguf")).gguf == Path("/home/me/one.gguf")


def test_parts_are_the_files_of_a_package_only() -> None:
    assert ModelSpec(name="one", package="maker/a").parts == ("maker/a",)
    assert ModelSpec(name="one", package=("maker/a", "maker/b")).parts == ("maker/a", "maker/b")
    assert ModelSpec(name="one", gguf=Path("a")).parts == ()


def test_what_a_run_file_needs_is_imported_without_torch() -> None:
    code = (
        "import sys, actors.catalog, actors.anchors, actors.corpora;"
        "print({'torch', 'transformers', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
