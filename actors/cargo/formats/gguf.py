"""Control vectors in GGUF, as repeng and llama.cpp write and read them.

`general.architecture` is controlvector, and `direction.N` [d] is added to the output of block N.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from actors.cargo.formats.layout import Format, by_site, chosen, flat, layers_of, residual
from actors.cargo.vectors import SteeringVectors, VectorError
from actors.catalog import ModelError
from actors.gguf_header import read_header

_ARCHITECTURE = "controlvector"
_HINT, _COUNT = f"{_ARCHITECTURE}.model_hint", f"{_ARCHITECTURE}.layer_count"
# Of ours, which others pass over.
_FINGERPRINT, _CONCEPT = "isthmus.fingerprint", "isthmus.concept"
_READ = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.F64)


def _claims(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _read(path: Path, layers: int, site: str | None) -> SteeringVectors:
    try:
        header = read_header(path, "the file")
    except ModelError as error:
        raise VectorError(str(error)) from None
    if header.architecture != _ARCHITECTURE:
        raise VectorError(
            f"a GGUF of {header.architecture or 'nothing named'}, not of {_ARCHITECTURE}"
        )
    try:
        tensors = GGUFReader(path).tensors
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise VectorError(f"damaged: {str(error).splitlines()[0]}") from None
    named = []
    for tensor in tensors:
        kind, _, number = tensor.name.partition(".")
        if kind != "direction":
            raise VectorError(f"{tensor.name}: only direction.N is known, N being a layer")
        if tensor.tensor_type not in _READ:
            raise VectorError(
                f"{tensor.name} is {tensor.tensor_type.name}; "
                f"{', '.join(each.name for each in _READ)} can be read"
            )
        named.append((residual(number, layers), flat(tensor.name, tensor.data)))
    known = {key: str(value) for key, value in header.metadata.items()}
    return SteeringVectors(
        chosen(by_site(named), site),
        model=known.get(_HINT),
        fingerprint=known.get(_FINGERPRINT),
        concept=known.get(_CONCEPT),
    )


def _write(vectors: SteeringVectors, path: Path) -> None:
    directions = layers_of(vectors, "gguf")
    if 0 in directions:
        raise VectorError("format gguf has no residual.0, which llama.cpp refuses; use isthmus")
    writer = GGUFWriter(path, _ARCHITECTURE)
    writer.add_string(_HINT, vectors.model or "")
    writer.add_uint32(_COUNT, len(directions))
    for key, value in ((_FINGERPRINT, vectors.fingerprint), (_CONCEPT, vectors.concept)):
        if value is not None:
            writer.add_string(key, value)
    for layer, vector in directions.items():
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FORMAT = Format("gguf", _claims, _read, _write)
