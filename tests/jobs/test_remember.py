"""`isthmus remember`, and `isthmus check` of what it wrote, as a user runs them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.cargo.memory_package import MemoryPackage
from actors.cargo.memory_record import FORMAT, RECORD_FILE, Record
from jobs.__main__ import USER_ERROR

TEXT = "Nobody had told the gardener about the frost.\nRain fell on the tin roof.\n"
Command = Callable[..., str]


@pytest.fixture
def said(run_verb: Callable[..., tuple[object, str, str]]) -> Command:
    """Run a verb, and give what it printed, or complained of where it had to."""

    def run(*arguments: object, code: int = 0) -> str:
        ended, out, err = run_verb(*arguments)
        assert ended == code, out + err
        return out if code == 0 else err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "notes.txt"
    written.write_text(TEXT)
    return written


def test_a_text_is_kept_as_the_model_holds_it(
    said: Command, file: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "memory"
    printed = said("remember", checkpoint("llama"), file, "-o", out)
    kept = MemoryPackage.load(out)
    assert kept.text == TEXT
    assert f"read     {len(kept.read.ids)} tokens, 3 layers" in printed
    assert str(out) in printed
    assert kept.read.spans[-1, 1] >= len(TEXT.rstrip())


def test_what_cannot_be_remembered_is_said_in_a_line(
    said: Command, file: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model, out = checkpoint("llama"), tmp_path / "memory"

    def refused(path: Path) -> str:
        printed = said("remember", model, path, "-o", out, code=USER_ERROR)
        assert printed.count("\n") == 1 or printed.startswith(("loading", "reading"))
        assert not out.exists()
        return printed

    assert "cannot be read: No such file" in refused(tmp_path / "absent.txt")
    for name, data, line in (
        ("empty.txt", b" \n", "is empty: there is nothing to remember"),
        ("binary.txt", b"abc\xff", "is no UTF-8 text: byte 3 is not"),
        (
            "long.txt",
            TEXT.encode() * 40,
            "characters is more than the context of 128 tokens holds; its",
        ),
    ):
        (tmp_path / name).write_bytes(data)
        assert line in refused(tmp_path / name)
    out.mkdir()
    printed = said("remember", model, file, "-o", out, code=USER_ERROR)
    assert "already there: give another directory" in printed


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A record alone: a check needs no cells."""
    directory = tmp_path / "memory"
    directory.mkdir()
    record = Record(
        format=FORMAT,
        model="smollm2-135m-instruct",
        fingerprint="0123456789abcdef",
        text=TEXT,
        tokens=700,
        layers=30,
        sha256="",
    )
    (directory / RECORD_FILE).write_text(record.model_dump_json())
    return directory


def test_a_package_is_checked_before_anything_is_loaded(said: Command, package: Path) -> None:
    printed = said("check", package, "gemma-3-270m")
    assert "smollm2-135m-instruct → gemma-3-270m, kv_cache" in printed
    assert "memory package of 700 tokens, 30 layers, made by smollm2-135m-instruct" in printed
    assert "fingerprint 0123456789ab" in printed
    assert "700 tokens, bfloat16" in printed  # what memory is told for


def test_a_package_has_the_context_that_it_has(said: Command, package: Path) -> None:
    printed = said("check", package, "gemma-3-270m", "--context-length", 9, code=USER_ERROR)
    assert "has 700 tokens, as it is" in printed
    (package / RECORD_FILE).write_text("{}")
    printed = said("check", package, "gemma-3-270m", code=USER_ERROR)
    assert "format None; 1 can be read" in printed
