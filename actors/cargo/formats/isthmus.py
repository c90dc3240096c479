"""Our own: safetensors with a vector for each site, and a JSON record of what they are."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import save_file

from actors.cargo.formats.layout import Format, by_site, chosen, flat
from actors.cargo.formats.tensors import is_safetensors, metadata_of, read_tensors
from actors.cargo.vectors import SteeringVectors, VectorError

_HEADER = "isthmus"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: Literal["steering"] = "steering"
    model: str | None
    fingerprint: str | None
    concept: str | None
    spreads: dict[str, float]


def _claims(path: Path) -> bool:
    return is_safetensors(path) and _HEADER in metadata_of(path)


def _read(path: Path, _layers: int, site: str | None) -> SteeringVectors:
    tensors, metadata = read_tensors(path)
    try:
        record = _Record.model_validate_json(metadata[_HEADER])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "its record"
        raise VectorError(f"no steering vectors of format 1: {where}: {first['msg']}") from None
    vectors = chosen(by_site((name, flat(name, each)) for name, each in tensors.items()), site)
    return SteeringVectors(
        vectors,
        model=record.model,
        fingerprint=record.fingerprint,
        concept=record.concept,
        spreads={at: spread for at, spread in record.spreads.items() if at in vectors},
    )


def _write(vectors: SteeringVectors, path: Path) -> None:
    record = _Record(
        model=vectors.model,
        fingerprint=vectors.fingerprint,
        concept=vectors.concept,
        spreads=dict(vectors.spreads),
    )
    tensors = {site: np.ascontiguousarray(each) for site, each in vectors.vectors.items()}
    save_file(tensors, path, {_HEADER: record.model_dump_json()})


FORMAT = Format("safetensors", _claims, _read, _write)
