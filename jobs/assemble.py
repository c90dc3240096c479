"""Puts what a sweep measured together into the matrix."""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from actors.catalog import ModelFacts, closed_line
from actors.fleet import find
from actors.folder import report_address
from alignment.coverage import coverage
from alignment.layers import measured_pairing
from alignment.similarity import Similarity
from cluster.session import ROOMS
from cluster.storage import Store, address
from evaluation.cargos import AnyCell
from evaluation.cargos.steering import SteeringCell
from evaluation.matrix import (
    AnchorFacts,
    GroupAgreement,
    LayerSimilarity,
    Matrix,
    ModelRow,
    Unavailable,
)
from evaluation.routes import Route, route
from jobs.cargo import Came
from jobs.config import CARGOS, RunFile
from jobs.names import ROOT
from jobs.paths import BEST, Routed
from jobs.priors import priors
from jobs.texts import Texts
from jobs.work import FORMAT, Work

_SHOWN = set(ModelRow.model_fields)
_PACKAGES = ("torch", "transformers", "ray", "numpy", "safetensors")


def assemble(
    run: RunFile,
    work: Work,
    texts: Texts,
    models: Mapping[str, ModelFacts],
    carried: Sequence[Came],
    agreements: Sequence[GroupAgreement],
    store: Store,
    seconds: dict[str, float],
) -> Matrix:
    """The matrix of a finished sweep, by what came of each cargo."""
    names = {facts.fingerprint: name for name, facts in models.items()}
    cells = tuple(cell for each in carried for cell in each.cells)
    similarities = []
    for comparison in work.comparisons:
        found = Similarity.from_bytes(store.get(comparison.to))
        a, b = names[comparison.source], names[comparison.target]
        similarities += [_similarity(a, b, found), _similarity(b, a, found.swapped)]
    steered = [cell.map_address for cell in cells if isinstance(cell, SteeringCell)]
    reports = [json.loads(store.get(report_address(to))) for to in steered]
    # A run that fits no map of sites reads anchors to compare layers alone.
    rows = [report["rows"] for report in reports] or [each.rows for each in similarities]
    return Matrix(
        run=run.name,
        address=_address(run, work, models, cells),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        models=tuple(ModelRow(**facts.model_dump(include=_SHOWN)) for facts in models.values()),
        similarities=tuple(similarities),
        cells=cells,
        agreements=tuple(agreements),
        routes=tuple(
            found
            for each in carried
            for routed in each.routes
            if (found := _route(run, routed)) is not None
        ),
        priors=priors(run),
        unavailable=tuple(
            Unavailable(name=name, reason=closed_line(find(name))) for name in run.closed
        ),
        anchors=AnchorFacts(
            texts=len(texts.anchors),
            rows=round(min(rows)),
            fingerprint=work.anchors,
            corpora=tuple(corpus.source_line() for corpus in run.anchors.corpora),
        ),
        lineage=lineage(),
        seconds=seconds,
    )


def _address(
    run: RunFile, work: Work, models: Mapping[str, ModelFacts], cells: Sequence[AnyCell]
) -> str:
    """What settles every number of a sweep: not where it runs, nor where it is kept.

    What was carried is part of it: where the code asks for other things than it did, the same run
    file leads to other maps, and these are versions of their own.
    """
    where = {"home", "store", "cluster", "tracking", "models"}
    without = {part for part in (*CARGOS, "routes", "closed") if not getattr(run, part)}
    settings = run.model_dump(mode="json", exclude=where | without)
    fingerprints = {name: facts.fingerprint for name, facts in models.items()}
    carried = [[*cell.key, cell.map_address] for cell in cells]
    return address("sweep", FORMAT, settings, fingerprints, work.anchors, carried)


def lineage() -> dict[str, str]:
    """What code made the numbers: the commit where there is one, and what it stood on."""
    packages = {f"package {name}": version(name) for name in _PACKAGES}
    return {"code": _code(ROOT), "commit": _commit(ROOT), **packages}


def _code(root: Path) -> str:
    """SHA-256 of the sources of the five rooms, in order of their paths."""
    digest = hashlib.sha256()
    for file in sorted(file for room in ROOMS for file in (root / room).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _commit(root: Path) -> str:
    asked = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"


def _route(run: RunFile, routed: Routed) -> Route | None:
    return route(
        routed.key,
        routed.path.nodes,
        routed.path.kept,
        routed.native,
        routed.direct,
        routed.effects[BEST],
        {name: of for name, of in routed.effects.items() if name != BEST},
        draws=routed.draws,
        seed=run.seed,
    )


def _similarity(source: str, target: str, found: Similarity) -> LayerSimilarity:
    covered = coverage(found)
    return LayerSimilarity(
        source=source,
        target=target,
        cka_raw=_grid(found.cka_raw),
        cka=_grid(found.cka),
        mutual_knn=_grid(found.mutual_knn),
        p_value=_grid(found.p_value),
        null_95=found.null_95,
        rows=found.rows,
        coverage_070=covered.standardised,
        coverage_null=covered.above_null,
        coverage_raw=covered.raw,
        alone=covered.alone,
        pairing=tuple(measured_pairing(found.cka)),
    )


def _grid(matrix: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
