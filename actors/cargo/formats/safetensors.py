"""Plain safetensors of others: a key for each layer, or one vector.

What this writes, `layer.N`, is the dictionary `layer_activations` of the steering-vectors library,
which has no file of its own but the pickle. What others write is read where its key names a layer.
"""

import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from actors.cargo.formats.layout import Format, by_site, chosen, flat, layers_of, residual
from actors.cargo.formats.tensors import is_safetensors, read_tensors
from actors.cargo.vectors import SteeringVectors, VectorError
from actors.site_names import Site

_LAYER = re.compile(
    r"(?:(?:layer|layers|layer_activations|direction|directions|residual)[._])?(-?\d+)"
    r"|blocks\.(\d+)\.hook_resid_post",
    re.ASCII,
)
_ALONE = ("vector", "steering_vector", "direction")
_BLOCK = "decoder_block"


def _read(path: Path, layers: int, site: str | None) -> SteeringVectors:
    tensors, metadata = read_tensors(path)
    kind = metadata.get("layer_type", _BLOCK)
    if kind != _BLOCK:
        raise VectorError(f"layer_type {kind}: only vectors of a {_BLOCK} can be read")
    if len(tensors) == 1 and (alone := next(iter(tensors))) in _ALONE:
        vectors = {_said(alone, metadata, layers, site): flat(alone, tensors[alone])}
    else:
        vectors = by_site(
            (residual(_layer(name), layers), flat(name, values)) for name, values in tensors.items()
        )
    return SteeringVectors(
        chosen(vectors, site),
        model=metadata.get("model"),
        fingerprint=metadata.get("fingerprint"),
        concept=metadata.get("concept"),
    )


def _said(key: str, metadata: dict[str, str], layers: int, site: str | None) -> str:
    """Where a vector belongs whose key does not say."""
    if "site" in metadata:
        return str(Site.parse(metadata["site"]))
    if "layer" in metadata:
        return residual(metadata["layer"], layers)
    if site is None:
        raise VectorError(f"key {key} does not say of which layer; say it: --site residual.N")
    return str(Site.parse(site))


def _layer(key: str) -> str:
    found = _LAYER.fullmatch(key)
    if found is None:
        raise VectorError(
            f"key {key!r} names no layer; known: layer.N, direction.N, residual.N, N, "
            f"blocks.N.hook_resid_post, or one of {', '.join(_ALONE)} alone"
        )
    return found[1] or found[2]


def _write(vectors: SteeringVectors, path: Path) -> None:
    layers = layers_of(vectors, "safetensors")
    known = {
        "model": vectors.model,
        "fingerprint": vectors.fingerprint,
        "concept": vectors.concept,
        "layer_type": _BLOCK,
    }
    metadata = {key: value for key, value in known.items() if value is not None}
    tensors = {f"layer.{layer}": np.ascontiguousarray(each) for layer, each in layers.items()}
    save_file(tensors, path, metadata)


FORMAT = Format("safetensors", is_safetensors, _read, _write)
