"""A cache as a directory, with all that is needed to know whether a model can use it.

memory.json says whose cache it is and of what text; memory.safetensors holds the ids and spans of
the tokens and their cells, keys as they are before any rotary embedding. The pair is checked before
anything is loaded into a model.

Shapes: t tokens, d width of all keys (or values) of a layer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from actors.cached_text import Read
from actors.caching import cell_sites
from actors.cargo.memory_record import FORMAT, RECORD_FILE, PackageError, Record, read_record
from actors.catalog import ModelFacts
from cluster.whole import whole_directory

CELLS_FILE = "memory.safetensors"
_IDS, _SPANS = "ids", "spans"


@dataclass(frozen=True, eq=False)
class MemoryPackage:
    """What a model holds of a text; `read.model` is the model's fingerprint."""

    model: str
    text: str
    read: Read

    def save(self, directory: Path) -> None:
        """Write both files. The directory, which must not be there yet, appears whole or not at
        all.

        Raises:
            PackageError: it is there, or cannot be written.
        """
        if directory.exists():
            raise PackageError(f"{directory} is already there: give another directory")
        try:
            with whole_directory(directory) as whole:
                self.write(whole)
        except OSError as error:
            raise PackageError(f"{directory}: cannot be written: {error.strerror}") from None

    def write(self, directory: Path) -> None:
        """Write both files into a directory that is there. Raises OSError where that fails."""
        cells = {_IDS: self.read.ids, _SPANS: self.read.spans, **self.read.cells}
        tensors = safetensors_numpy.save({n: np.ascontiguousarray(c) for n, c in cells.items()})
        record = Record(
            format=FORMAT,
            model=self.model,
            fingerprint=self.read.model,
            text=self.text,
            tokens=len(self.read.ids),
            layers=len(self.read.cells) // 2,
            sha256=hashlib.sha256(tensors).hexdigest(),
        )
        (directory / CELLS_FILE).write_bytes(tensors)
        text = record.model_dump_json(indent=2) + "\n"
        (directory / RECORD_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> MemoryPackage:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing, damaged or of another format, or they do not belong
                together.
        """
        record = read_record(directory)
        place = directory / CELLS_FILE
        try:
            data = place.read_bytes()
            if hashlib.sha256(data).hexdigest() != record.sha256:
                raise PackageError(
                    f"{place} is not the file that {RECORD_FILE} describes (SHA-256)"
                )
            cells = safetensors_numpy.load(data)
        except OSError as error:
            raise PackageError(f"{place}: cannot be read: {error.strerror}") from None
        except SafetensorError as error:
            raise PackageError(f"{place} is no safetensors file: {error}") from None
        wanted = {_IDS, _SPANS, *cell_sites(record.layers)}
        if cells.keys() != wanted:
            odd = min(cells.keys() ^ wanted)
            wrong = "has an odd" if odd in cells else "lacks"
            raise PackageError(f"{place} {wrong} {odd}, for a cache of {record.layers} layers")
        by_site = {site: cells[site] for site in cell_sites(record.layers)}
        read = Read(record.fingerprint, cells[_IDS], cells[_SPANS], by_site)
        _check(place, record, read)
        return cls(record.model, record.text, read)

    def require_of(self, model: ModelFacts) -> None:
        """Make sure that this is a cache of the model.

        Raises:
            PackageError: of another revision of it, or of another shape.
        """
        if self.read.model != model.fingerprint:
            raise PackageError(
                f"a cache of {self.model}, fingerprint {self.read.model[:12]}; {model.name} here "
                f"has fingerprint {model.fingerprint[:12]}: another model, or another revision"
            )
        width = model.kv_heads * model.head_width
        if len(self.read.cells) != 2 * model.layers:
            raise PackageError(
                f"a cache of {len(self.read.cells) // 2} layers; {model.name} has {model.layers}"
            )
        for site, cells in self.read.cells.items():
            if cells.shape[1] != width:
                raise PackageError(
                    f"{site}: cells of width {cells.shape[1]}; {model.name} has {width} there"
                )


def _check(place: Path, record: Record, read: Read) -> None:
    """Everything about every token, and every token in the text."""
    if read.ids.shape != (record.tokens,) or read.spans.shape != (record.tokens, 2):
        raise PackageError(f"{place}: ids and spans are not of {record.tokens} tokens")
    starts, ends = read.spans.T
    if ((starts < 0) | (starts > ends) | (ends > len(record.text))).any():
        raise PackageError(
            f"{place}: spans that are not in a text of {len(record.text)} characters"
        )
    for site, cells in read.cells.items():
        if cells.ndim != 2 or len(cells) != record.tokens:
            raise PackageError(f"{place}: {site}: cells of shape {cells.shape}, not of all tokens")
        if cells.dtype != np.float32 or not np.isfinite(cells).all():
            raise PackageError(f"{place}: {site}: cells are float32 and finite")
