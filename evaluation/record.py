"""What is recorded of a matrix, as flat metrics, tags and facts; the tracker itself is elsewhere.

NaN metrics are left in: who logs them drops what is not finite.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from evaluation.cargos import AnyCell
from evaluation.flat import bounds, plain, slug
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
        metrics |= bounds(f"retention.{model_name(*cell.key)}", cell.retention)
    for of in matrix.routes:
        name = f"route.{model_name(*of.key)}"
        metrics |= bounds(f"{name}.direct", of.direct) | bounds(f"{name}.routed", of.routed)
        metrics |= bounds(f"{name}.gain", of.gain)
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
        "retention": plain(cell.retention),
        "held_out_r2": cell.held_out_r2 if math.isfinite(cell.held_out_r2) else None,
        "source_fingerprint": matrix.model(cell.source).fingerprint,
        "target_fingerprint": matrix.model(cell.target).fingerprint,
        "anchors_fingerprint": matrix.anchors.fingerprint,
        "sweep": matrix.address,
        "map_address": cell.map_address,
        **cell.own().facts,
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
        files=cell.own().files,
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
        facts=facts | own | {"retention": plain(of.routed)},
        tags=tags | own,
        kept=_kept(cell, of.routed),
        metrics=bounds("retention", of.routed) | bounds("gain", of.gain),
        files=cell.own().files,
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
        **cell.own().tags,
    }


def cell_metrics(matrix: Matrix, cell: AnyCell) -> dict[str, float]:
    """Metrics of a child run, each interval as name, name_low and name_high."""
    before = matrix.known_before(cell).items()
    metrics = {
        **bounds("base", cell.base),
        **bounds("native", cell.native),
        **bounds("carried", cell.carried),
        **bounds("retention", cell.retention),
        "held_out_r2": cell.held_out_r2,
        "map_bytes": float(cell.map_bytes),
        **{name: float(value) for name, value in before if value is not None},
        **cell.own().metrics,
    }
    for control in cell.controls:
        metrics |= bounds(f"control.{slug(control.name)}", control.retention)
        if control.spread is not None:
            metrics[f"control.{slug(control.name)}_largest"] = control.spread.largest
    return metrics


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
