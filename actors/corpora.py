"""Where texts come from: a file of an installed package, a local file, or a data set on the hub.

No text is kept in the project: corpora are read at run time from what the user has.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from actors.assets import AssetError, locate
from actors.choices import answered

SOURCES = ("package", "file", "hub")
FORMATS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".arrow", ".parquet")

_PACKAGE_FILE = re.compile(r"[A-Za-z_]\w*(/[^/]+)+")
_HUB_FILE = re.compile(r"[\w.-]+/[\w.-]+(/[^/]+)+")


class CorpusError(ValueError):
    """A corpus that cannot be read: one line that says which, where and why."""


class CorpusSpec(BaseModel):
    """Texts of one file, one text a line or one text a record.

    `package` is `import_package/path/to/file` in an installed distribution, `file` a local file,
    `hub` is `organisation/data-set/path/to/file` on the hub, with an optional `revision`. `field`
    says where the text is in a record, as in `text` or `doc.query`. `where` keeps the records
    whose fields have the given values. `limit` keeps the first texts, after `where`. With
    `answered`, the texts are questions with lettered choices that end with the letter of one, and
    are read as the question with that answer in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str | None = None
    file: Path | None = None
    hub: str | None = None
    revision: str | None = None
    field: str | None = None
    where: dict[str, JsonValue] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    answered: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [source for source in SOURCES if getattr(self, source) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"exactly one of {', '.join(SOURCES)} is needed, found {found}")
        if self.package is not None and not _PACKAGE_FILE.fullmatch(self.package):
            raise ValueError(f"package is {self.package!r}, not import_package/path/to/file")
        if self.hub is not None and not _HUB_FILE.fullmatch(self.hub):
            raise ValueError(f"hub is {self.hub!r}, not organisation/data-set/path/to/file")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision goes with hub only")
        kind = _format(self.file_name)
        if kind is None:
            raise ValueError(f"{self.file_name} has none of the endings {', '.join(FORMATS)}")
        if kind == ".txt" and (self.field is not None or self.where is not None or self.answered):
            raise ValueError(
                f"{self.file_name} has a text a line: field, where and answered do not apply"
            )
        if kind != ".txt" and self.field is None:
            raise ValueError(f"{self.file_name} has records: say in field where the text is")
        return self

    @property
    def file_name(self) -> str:
        """The last part of the source's path."""
        return str(self.package or self.file or self.hub).rsplit("/", 1)[-1]

    def source_line(self) -> str:
        """Where the texts come from, in a few words for people."""
        source = self.package or self.hub or str(self.file)
        return source if self.field is None else f"{source} ({self.field})"


def read_texts(spec: CorpusSpec) -> Iterator[str]:
    """The texts of a corpus in the file's order, without space at either end; empty ones left out.

    Raises:
        CorpusError: one line; the file is missing, damaged, or a record lacks the field.
    """
    path = _path(spec)
    kind = _format(path.name)
    try:
        texts = _lines(path) if kind == ".txt" else _texts_of_records(spec, _records(path, kind))
        yield from islice((text for text in map(str.strip, texts) if text), spec.limit)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CorpusError(f"corpus {spec.source_line()} cannot be read: {error}") from error


def _path(spec: CorpusSpec) -> Path:
    if spec.package is not None:
        try:
            return locate(spec.package)
        except AssetError as error:
            raise CorpusError(f"corpus {spec.source_line()}: {error}") from error
    if spec.hub is not None:
        return _download(spec, spec.hub)
    assert spec.file is not None
    path = spec.file.expanduser()
    if not path.is_file():
        raise CorpusError(f"corpus {spec.source_line()}: there is no file {path}")
    return path


def _download(spec: CorpusSpec, hub: str) -> Path:
    # Not at the top: only corpora from the hub need it.
    from huggingface_hub import hf_hub_download

    organisation, name, inside = hub.split("/", 2)
    try:
        path = hf_hub_download(
            f"{organisation}/{name}", inside, repo_type="dataset", revision=spec.revision
        )
    except OSError as error:  # all of the hub's errors are
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CorpusError(f"corpus hub {hub} cannot be fetched: {reason}") from error
    return Path(path)


def _texts_of_records(spec: CorpusSpec, records: Iterator[Any]) -> Iterator[str]:
    assert spec.field is not None
    for number, record in enumerate(records, start=1):
        place = f"corpus {spec.source_line()}, record {number}"
        wanted = spec.where or {}
        if any(_pick(record, path, place) != value for path, value in wanted.items()):
            continue
        text = _pick(record, spec.field, place)
        if not isinstance(text, str):
            raise CorpusError(f"{place}: {spec.field} is {type(text).__name__}, not text")
        if spec.answered:
            text = answered(text)
            if text is None:
                raise CorpusError(
                    f"{place}: {spec.field} is no question with lettered choices, such as "
                    "(A) and (B), that ends with the letter of one"
                )
        yield text


def _pick(record: object, path: str, place: str) -> object:
    value = record
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise CorpusError(f"{place} has no field {path}")
        value = cast("Mapping[str, object]", value)[step]
    return value


def _records(path: Path, kind: str | None) -> Iterator[Any]:
    if kind == ".jsonl":
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                yield _parse(line, f"{path}, line {number}")
    elif kind == ".json":
        with _open(path) as file:
            records = _parse(file.read(), str(path))
        if not isinstance(records, list):
            raise CorpusError(f"{path} is not a JSON list of records")
        yield from records
    else:
        yield from _arrow_records(path, kind)


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{place} is not JSON: {error}") from error


def _arrow_records(path: Path, kind: str | None) -> Iterator[Any]:
    # Not at the top: it takes a second to import, and a run file is checked without.
    import pyarrow as pa
    from pyarrow import ipc, parquet

    try:
        if kind == ".parquet":
            table = parquet.read_table(path)
        else:
            with pa.memory_map(str(path)) as source:
                table = ipc.open_stream(source).read_all()
    except pa.ArrowInvalid as error:
        raise CorpusError(f"{path} is damaged or not {kind}: {error}") from error
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[str]:
    with _open(path) as file:
        yield from file


def _open(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8")
    return path.open(encoding="utf-8")


def _format(name: str) -> str | None:
    """The ending that says how a file is laid out, without .gz."""
    ending = next((ending for ending in FORMATS if name.endswith(ending)), None)
    return ending.removesuffix(".gz") if ending else None
