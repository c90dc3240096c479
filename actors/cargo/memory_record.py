"""What a memory package says of itself, which is read without its cells and without any model."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT = 1
RECORD_FILE = "memory.json"


class PackageError(ValueError):
    """A memory package that cannot be used; one line says why, and what can be."""


class Record(BaseModel):
    """memory.json: the model's name and `ModelFacts.fingerprint`, the text, and how many tokens.

    `sha256` is that of memory.safetensors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    model: str
    fingerprint: str
    text: str
    tokens: int
    layers: int
    sha256: str


def read_record(directory: Path) -> Record:
    """memory.json alone, without the cells.

    Raises:
        PackageError: it is missing, damaged or of another format.
    """
    place = directory / RECORD_FILE
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{directory} is no memory package: it has no {RECORD_FILE}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PackageError(f"{place} cannot be read: {error}") from None
    if isinstance(record, dict) and record.get("format") != FORMAT:
        raise PackageError(f"{place}: format {record.get('format')}; {FORMAT} can be read")
    try:
        return Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise PackageError(f"{place}: {where}: {first['msg']}") from None
