"""What is recorded of a matrix, as flat metrics, tags and facts; the tracker itself is elsewhere.

NaN metrics are left in: who logs them drops what is not finite.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from evaluation.cells import (
    AdapterCell,
    AnyCell,
    CacheCell,
    PromptCell,
    SteeringCell,
    TrainedWay,
)
from evaluation.matrix import Matrix
from evaluation.retention import Interval, level
from evaluation.routes import Route

# Of the one map that goes directly.
_OF_A_MAP = ("held_out_r2", "map_address", "vector_address", "address.map", "address.vector")


def model_name(source: str, target: str, cargo: str, concept: str) -> str:
    """The name a carried cargo is registered under."""
    return f"{source}--{target}--{cargo}--{concept}"


def sweep_tags(matrix: Matrix) -> dict[str, str]:
    """Tags of the parent run: code, anchors, models, and the paths of recommended routes."""
    routes = {
        f"route.{model_name(*of.key)}": " > ".join(of.path)
        for of in matrix.routes
        if of.recommended
    }
    models = {f"fingerprint.{m.name}": m.fingerprint for m in matrix.models}
    return lineage(matrix) | models | routes


def sweep_metrics(matrix: Matrix) -> dict[str, float]:
    """Metrics of the parent run: the retentions, the coverages, the routes and the seconds."""
    metrics = {f"seconds.{slug(stage)}": seconds for stage, seconds in matrix.seconds.items()}
    for pair in matrix.similarities:
        ends = f"{pair.source}--{pair.target}"
        metrics[f"coverage_070.{ends}"] = pair.coverage_070
        metrics[f"coverage_null.{ends}"] = pair.coverage_null
        metrics[f"depth_distance.{ends}"] = pair.depth_agreement.distance
    for cell in matrix.cells:
        metrics |= _bounds(f"retention.{model_name(*cell.key)}", cell.retention)
    for of in matrix.routes:
        name = f"route.{model_name(*of.key)}"
        metrics |= _bounds(f"{name}.direct", of.direct) | _bounds(f"{name}.routed", of.routed)
        metrics |= _bounds(f"{name}.gain", of.gain)
    return metrics


def cell_facts(matrix: Matrix, cell: AnyCell) -> dict[str, JsonValue]:
    """What somebody who fetches a map has to know: how it is used, and what it is worth."""
    return {
        "source": cell.source,
        "target": cell.target,
        "cargo": cell.cargo,
        "concept": cell.concept,
        "way": cell.way,
        "level": str(cell.level),
        "retention": _plain(cell.retention),
        "held_out_r2": cell.held_out_r2 if math.isfinite(cell.held_out_r2) else None,
        "source_fingerprint": matrix.model(cell.source).fingerprint,
        "target_fingerprint": matrix.model(cell.target).fingerprint,
        "anchors_fingerprint": matrix.anchors.fingerprint,
        "sweep": matrix.address,
        "map_address": cell.map_address,
        **_own(cell).facts,
    }


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a crossing: in a child run, which is `part` of its sweep, and with a
    version of the model `name`; `kept` is what the next version will be judged against."""

    part: str
    name: str
    facts: dict[str, JsonValue]
    tags: dict[str, str]
    kept: dict[str, str]
    metrics: dict[str, float]
    files: tuple[str, ...]


def recorded(matrix: Matrix, cell: AnyCell) -> Recorded:
    """Of what went directly."""
    name = model_name(*cell.key)
    return Recorded(
        part=name,
        name=name,
        facts=cell_facts(matrix, cell),
        tags=cell_tags(matrix, cell),
        kept=_kept(cell, cell.retention),
        metrics=cell_metrics(matrix, cell),
        files=_own(cell).files,
    )


def recorded_route(matrix: Matrix, of: Route) -> Recorded:
    """Of what went through other models: it is used as what goes directly, and its version stands
    beside that one's, told apart by the tag `path`."""
    cell, through = matrix.cell(*of.key), " > ".join(of.path[1:-1])
    own = {
        "way": f"through {through}",
        "path": " > ".join(of.path),
        "level": str(level(of.routed)),
    }
    facts = {k: x for k, x in cell_facts(matrix, cell).items() if k not in _OF_A_MAP}
    tags = {k: x for k, x in cell_tags(matrix, cell).items() if k not in _OF_A_MAP}
    name = model_name(*of.key)
    return Recorded(
        part=f"{name} {own['way']}",
        name=name,
        facts=facts | own | {"retention": _plain(of.routed)},
        tags=tags | own,
        kept=_kept(cell, of.routed),
        metrics=_bounds("retention", of.routed) | _bounds("gain", of.gain),
        files=_own(cell).files,
    )


def lineage(matrix: Matrix) -> dict[str, str]:
    """Tags of every run: the code that ran and the anchors it read."""
    named = {f"lineage.{key}": value for key, value in matrix.lineage.items()}
    return named | {"fingerprint.anchors": matrix.anchors.fingerprint}


def cell_tags(matrix: Matrix, cell: AnyCell) -> dict[str, str]:
    """Tags of a child run."""
    return lineage(matrix) | {
        "source": cell.source,
        "target": cell.target,
        "cargo": cell.cargo,
        "concept": cell.concept,
        "way": cell.way,
        "level": str(cell.level),
        "fingerprint.source": matrix.model(cell.source).fingerprint,
        "fingerprint.target": matrix.model(cell.target).fingerprint,
        "address.map": cell.map_address,
        **_own(cell).tags,
    }


def cell_metrics(matrix: Matrix, cell: AnyCell) -> dict[str, float]:
    """Metrics of a child run, each interval as name, name_low and name_high."""
    before = matrix.known_before(cell).items()
    metrics = {
        **_bounds("base", cell.base),
        **_bounds("native", cell.native),
        **_bounds("carried", cell.carried),
        **_bounds("retention", cell.retention),
        "held_out_r2": cell.held_out_r2,
        "map_bytes": float(cell.map_bytes),
        **{name: float(value) for name, value in before if value is not None},
        **_own(cell).metrics,
    }
    for control in cell.controls:
        metrics |= _bounds(f"control.{slug(control.name)}", control.retention)
        if control.spread is not None:
            metrics[f"control.{slug(control.name)}_largest"] = control.spread.largest
    return metrics


@dataclass(frozen=True)
class _Own:
    """What is recorded of one kind of cell beside what all have."""

    files: tuple[str, ...]
    facts: dict[str, JsonValue]
    tags: dict[str, str]
    metrics: dict[str, float]


def _own(cell: AnyCell) -> _Own:
    if isinstance(cell, SteeringCell):
        return _of_steering(cell)
    if isinstance(cell, AdapterCell):
        return _of_adapter(cell)
    return _of_prompt(cell) if isinstance(cell, PromptCell) else _of_cache(cell)


def _of_steering(cell: SteeringCell) -> _Own:
    where: dict[str, str] = {"site": cell.site, "role": cell.role}
    metrics = {
        **_bounds("together", cell.together),
        "native_p": cell.native_p,
        "strength": cell.strength,
        "cosine_to_native": cell.cosine_to_native,
    }
    for score in cell.ways:
        metrics[f"way.{slug(score.name)}.held_out_r2"] = score.held_out_r2
        metrics[f"way.{slug(score.name)}.dev"] = score.dev
        metrics |= _bounds(f"way.{slug(score.name)}.retention", score.retention)
    for place in cell.places:
        metrics[f"place.{slug(place.site)}.native"] = place.native
        metrics |= _bounds(f"place.{slug(place.site)}.retention", place.retention)
    for row in cell.judged:
        metrics |= _bounds(f"judged.{slug(row.judge)}.native", row.native)
        metrics |= _bounds(f"judged.{slug(row.judge)}.carried", row.carried)
        metrics |= _bounds(f"judged.{slug(row.judge)}.control", row.control)
        metrics |= _bounds(f"judged.{slug(row.judge)}.retention", row.retention)
    for row in cell.neutral:
        metrics[f"neutral.{slug(row.name)}.nll"] = row.nll
        metrics[f"neutral.{slug(row.name)}.kl"] = row.kl
    return _Own(
        files=("map.json", "map.safetensors", "vector.safetensors"),
        facts={**where, "strength": cell.strength, "vector_address": cell.vector_address},
        tags={**where, "address.vector": cell.vector_address},
        metrics=metrics,
    )


def _of_cache(cell: CacheCell) -> _Own:
    sizes = {
        "cached_characters": cell.cached_characters,
        "judged_characters": cell.judged_characters,
        "texts": cell.texts,
    }
    metrics = {**_bounds("tokens", cell.tokens), **{name: float(n) for name, n in sizes.items()}}
    for scheme, r2 in cell.heads.items():
        metrics[f"heads.{slug(scheme)}.held_out_r2"] = r2
    for score in cell.again:
        metrics |= _bounds(f"again.{score.share:g}.retention", score.retention)
    for small in cell.small:
        metrics[f"map.{slug(small.name)}.map_bytes"] = float(small.map_bytes)
        metrics |= _bounds(f"map.{slug(small.name)}.retention", small.retention)
    for of in cell.contents:
        metrics[f"content.{slug(of.name)}.texts"] = float(of.texts)
        metrics[f"content.{slug(of.name)}.gain"] = of.gain
        metrics |= _bounds(f"content.{slug(of.name)}.retention", of.retention)
    return _Own(
        files=("cache_map.json", "cache_map.safetensors"),
        facts={**sizes, "tokens": _plain(cell.tokens)},
        tags={},
        metrics=metrics,
    )


def _of_adapter(cell: AdapterCell) -> _Own:
    metrics = {
        "rank": float(cell.rank),
        "items": float(cell.items),
        "native.tokens": float(cell.native_tokens),
        "native.seconds": cell.native_seconds,
    }
    for score in cell.ways:
        metrics |= _of_way(score)
    for name, of in (("safety", cell.safety), ("native.safety", cell.native_safety)):
        if of is not None:
            for part, share in vars(of).items():
                metrics |= _bounds(f"{name}.{part}", share)
    return _Own(
        files=("adapter_config.json", "adapter_model.safetensors"),
        facts={"rank": cell.rank, "unit": cell.unit, "items": cell.items},
        tags={},
        metrics=metrics,
    )


def _of_prompt(cell: PromptCell) -> _Own:
    sizes = {
        "count": cell.count,
        "items": cell.items,
        "learned": cell.learned,
        "parameters": cell.parameters,
    }
    metrics = {
        **{name: float(size) for name, size in sizes.items()},
        "native.tokens": float(cell.native_tokens),
        "native.seconds": cell.native_seconds,
        **_bounds("relay", cell.relay),
        **_bounds("of_bytes", cell.of_bytes),
    }
    for score in cell.ways:
        metrics |= _of_way(score)
    return _Own(
        files=("latents.safetensors",),
        facts={
            **sizes,
            "site": cell.site,
            "unit": cell.unit,
            "relay": _plain(cell.relay),
            "of_bytes": _plain(cell.of_bytes),
        },
        tags={"site": cell.site},
        metrics=metrics,
    )


def _of_way(score: TrainedWay) -> dict[str, float]:
    way = f"way.{slug(score.name)}"
    return {
        f"{way}.loss_before": score.loss_before,
        f"{way}.loss_after": score.loss_after,
        f"{way}.tokens": float(score.tokens),
        f"{way}.seconds": score.seconds,
        f"{way}.held": score.held,
        **_bounds(f"{way}.retention", score.retention),
    }


def _kept(cell: AnyCell, kept: Interval | None) -> dict[str, str]:
    """What the next version will be judged against; nothing where retention is undefined, or of an
    effect that chance has too."""
    if kept is None or not cell.is_real:
        return {}
    return {"retention": repr(kept.value), "retention_low": repr(kept.low)}


def not_worse(new: Mapping[str, str], old: Mapping[str, str]) -> bool:
    """Whether one version may take the place of another, by the tags of both."""
    if "retention" not in old:
        return True
    if "retention" not in new:
        return False
    keys = ("retention_low", "retention")
    return any(lacking(new, key) <= lacking(old, key) for key in keys)


def lacking(tags: Mapping[str, str], key: str = "retention") -> float:
    """What a version lacks of the native effect; of a vector, which may also do too much, how far
    it is off."""
    left = 1 - float(tags[key])
    return abs(left) if tags["cargo"] == "steering" else left


def _plain(interval: Interval | None) -> JsonValue:
    return None if interval is None else [interval.value, interval.low, interval.high]


def _bounds(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def slug(name: str) -> str:
    """A name with only the characters that metrics and files may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-")
