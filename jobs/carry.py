"""`isthmus carry`: a user's own cargo from one model into another.

Shapes: d width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue

from actors.cargo.formats import FORMATS, read_vectors, recognise
from actors.cargo.steering import carry, injection
from actors.cargo.vectors import SteeringVectors, VectorError
from actors.catalog import ModelFacts
from jobs.bridges import Bridge, Bridges
from jobs.ends import RECORD_FILE, CarryError, carried_directory, ends, require_free
from jobs.names import ROOT, one_of
from jobs.progress import Reporter

DEFAULT_RUN = ROOT / "configs" / "demo.yaml"  # its anchors and maps, where a user names no run
_OWN = "isthmus"

_README = """\
{concept} steering at {sites} of {target}, carried from {source} as {record} says.
Add strength times the vector of residual.N to what block N leaves (from 0), at every position.
Each was made as long as a typical centred activation there: strengths are 0.05 to 0.4 as a rule.
With safetensors and torch: safetensors.torch.load_file("{own}")["{site}"]  # [{width}]
{export}
"""
_EXPORTS = {
    "isthmus": "Carried with --format gguf or --format safetensors it is there for others as well.",
    "gguf": "{file} is for llama.cpp (--control-vector) and repeng (ControlVector.import_gguf).",
    "safetensors": "{file} is for steering-vectors: its layer.N is layer_activations[N].",
}


@dataclass(frozen=True)
class Carried:
    """What was carried: the new directory, by which bridges, and the sites that had none."""

    directory: Path
    bridges: tuple[Bridge, ...]
    left: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a user asks for: names of models as in other verbs, or of a run file's models."""

    file: Path
    source: str
    target: str
    out: Path
    run: Path | None = None
    concept: str | None = None
    site: str | None = None
    format: str | None = None


def carry_steering(wish: Wish, reporter: Reporter) -> Carried:
    """Carry the vectors of a file, and write them with all that is known of them.

    The directory appears whole or not at all; nothing is tracked.

    Raises:
        CarryError: the directory is not empty, or both models are the same.
        VectorError: the file is no vector of the source, or cannot be had in the format.
        NoBridge: no map begins where the vector is.
        ModelError, ConfigError: a model, or the run file, is not there or broken.
    """
    torch.set_num_threads(1)  # as a sweep's: the same maps to the bit
    require_free(wish.out)
    export = _format(wish)
    run, source, target = ends(wish.source, wish.target, wish.run, DEFAULT_RUN, reporter)
    vectors = _vectors(wish, source)
    bridges = Bridges(run, source, target, reporter).of(
        vectors.vectors, wish.concept or vectors.concept
    )
    carried = _across(vectors, bridges, target)
    record = _record(wish, source, target, bridges)
    _write(carried, record, export, wish.out)
    begun = {bridge.source_site for bridge in bridges}
    left = tuple(site for site in vectors.vectors if site not in begun)
    return Carried(wish.out, tuple(bridges), left)


# --- what is asked for


def _format(wish: Wish) -> str:
    """What to write beside our own format: what came in, unless another is asked for."""
    came = recognise(wish.file)
    if wish.format is not None:
        one_of("format", wish.format, tuple(FORMATS), CarryError)
    return wish.format or came


def _vectors(wish: Wish, source: ModelFacts) -> SteeringVectors:
    vectors = read_vectors(wish.file, source.layers, wish.site)
    try:
        vectors.require_for(source)
    except VectorError as error:
        raise VectorError(f"{wish.file}: {error}") from None
    for site, vector in vectors.vectors.items():
        if not vector.any():
            raise VectorError(f"{wish.file}: {site}: the vector is zero, it has no direction")
    return vectors


# --- what comes of it


def _across(
    vectors: SteeringVectors, bridges: Sequence[Bridge], target: ModelFacts
) -> SteeringVectors:
    """Each vector as a direction of the target [d], as long as an activation is there."""
    carried = {}
    for bridge in bridges:
        direction = carry(vectors.vectors[bridge.source_site], bridge.map)
        if not direction.any():
            raise VectorError(f"{bridge.source_site}: the map leaves nothing of the vector")
        pushed = injection(bridge.target_site, direction, bridge.target_spread, 1.0)
        carried[bridge.target_site] = pushed.vector
    return SteeringVectors(
        carried,
        model=target.family,
        fingerprint=target.fingerprint,
        concept=vectors.concept,
        spreads={bridge.target_site: bridge.target_spread for bridge in bridges},
    )


def _write(carried: SteeringVectors, record: dict[str, JsonValue], export: str, out: Path) -> None:
    """The whole directory: our own file, that of the other format, the record and how to use it."""
    names = {_OWN: f"steering.{FORMATS[_OWN].suffix}"}
    if export != _OWN:
        suffix = FORMATS[export].suffix
        names[export] = f"{'layers' if suffix == FORMATS[_OWN].suffix else 'steering'}.{suffix}"
    with carried_directory(out, record, _readme(carried, record, names)) as whole:
        for name, file in names.items():
            FORMATS[name].write(carried, whole / file)


def _record(
    wish: Wish, source: ModelFacts, target: ModelFacts, bridges: Sequence[Bridge]
) -> dict[str, JsonValue]:
    """Where all of it came from, as JSON."""
    return {
        "file": wish.file.name,
        "file_sha256": hashlib.sha256(wish.file.read_bytes()).hexdigest(),
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "target": target.name,
        "target_fingerprint": target.fingerprint,
        "carried": [
            {
                "source_site": bridge.source_site,
                "target_site": bridge.target_site,
                "map_address": bridge.address,
                "map": bridge.tracked or "fitted, not tracked",
                "fitter": bridge.fitter,
                "held_out_r2": bridge.held_out_r2,
                "target_spread": bridge.target_spread,
            }
            for bridge in bridges
        ],
    }


def _readme(carried: SteeringVectors, record: dict[str, JsonValue], names: dict[str, str]) -> str:
    *_, export = names
    site = next(iter(carried.vectors))
    return _README.format(
        concept=carried.concept or "Unnamed",
        source=record["source"],
        target=record["target"],
        sites=", ".join(carried.vectors),
        record=RECORD_FILE,
        own=names[_OWN],
        site=site,
        width=len(carried.vectors[site]),
        export=_EXPORTS[export].format(file=names[export]),
    )
