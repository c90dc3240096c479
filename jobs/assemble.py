"""Puts what a sweep measured together into the matrix."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from actors.cache_folder import CARRIED, MAPS
from actors.cargo.steering import cosine
from actors.catalog import ModelFacts, closed_line
from actors.fleet import find
from actors.folder import report_address
from actors.hand_over import again
from actors.mending import PARTS, right
from alignment.coverage import coverage
from alignment.layers import measured_pairing
from alignment.similarity import Similarity
from cluster.session import ROOMS
from cluster.storage import Store, address
from evaluation.adapter_cells import adapter_cell
from evaluation.cache_cells import cache_cell
from evaluation.cells import (
    AdapterCell,
    AnyCell,
    CacheCell,
    Control,
    JudgedRow,
    NeutralRow,
    PlaceScore,
    PromptCell,
    Sample,
    Spread,
    SteeringCell,
    StrengthPoint,
    WayScore,
)
from evaluation.judges import JUDGES
from evaluation.matrix import (
    AnchorFacts,
    GroupAgreement,
    LayerSimilarity,
    Matrix,
    ModelRow,
    Unavailable,
)
from evaluation.prompt_cells import prompt_cell
from evaluation.protocol import stands_out
from evaluation.retention import Interval, level, measure_retention
from evaluation.routes import Route, route
from evaluation.skills import SKILLS
from evaluation.suites import SUITES
from evaluation.trained_ways import Effort, Judging
from evaluation.written import judge_written
from jobs.adapters import Adapted
from jobs.choosing import Visited
from jobs.config import CARGOES, RunFile
from jobs.handing_over import Handed
from jobs.names import ROOT
from jobs.paths import BEST, Routed
from jobs.priors import priors
from jobs.soft_prompts import Prompted
from jobs.steer import RELABELLED, Judged
from jobs.texts import Texts
from jobs.work import FORMAT, Work

_SHOWN = set(ModelRow.model_fields)
Share = Callable[[np.ndarray], Interval | None]
_PACKAGES = ("torch", "transformers", "ray", "numpy", "safetensors")


@dataclass(frozen=True, eq=False)
class Results:
    """What came of each cargo, and how far the groups of concepts agree."""

    judged: Sequence[Judged]
    handed: Sequence[Handed]
    adapted: Sequence[Adapted]
    prompted: Sequence[Prompted]
    agreements: Sequence[GroupAgreement]
    routed: Sequence[Routed]


def assemble(
    run: RunFile,
    work: Work,
    texts: Texts,
    models: Mapping[str, ModelFacts],
    results: Results,
    store: Store,
    seconds: dict[str, float],
) -> Matrix:
    """The matrix of a finished sweep."""
    names = {facts.fingerprint: name for name, facts in models.items()}
    steered = tuple(_steering_cell(run, store, each) for each in results.judged)
    similarities = []
    for comparison in work.comparisons:
        found = Similarity.from_bytes(store.get(comparison.to))
        a, b = names[comparison.source], names[comparison.target]
        similarities += [_similarity(a, b, found), _similarity(b, a, found.swapped)]
    reports = [json.loads(store.get(report_address(cell.map_address))) for cell in steered]
    # A run that fits no map of sites reads anchors to compare layers alone.
    rows = [report["rows"] for report in reports] or [each.rows for each in similarities]
    cells = (
        *steered,
        *(_cache_cell(run, store, each) for each in results.handed),
        *(_adapter_cell(run, each) for each in results.adapted),
        *(_prompt_cell(run, each, models) for each in results.prompted),
    )
    return Matrix(
        run=run.name,
        address=_address(run, work, models, cells),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        models=tuple(ModelRow(**facts.model_dump(include=_SHOWN)) for facts in models.values()),
        similarities=tuple(similarities),
        cells=cells,
        agreements=tuple(results.agreements),
        routes=tuple(each for of in results.routed if (each := _route(run, of)) is not None),
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
    without = {part for part in (*CARGOES, "routes", "closed") if not getattr(run, part)}
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


def _steering_cell(run: RunFile, store: Store, judged: Judged) -> SteeringCell:
    hop, choice = judged.choice.hop, judged.choice
    draws = {"draws": run.steers.bootstrap_draws, "seed": run.seed}
    base = np.zeros_like(judged.native)

    def share(slopes: np.ndarray) -> Interval | None:
        return measure_retention(base, judged.native, slopes, **draws).retention

    carried = measure_retention(base, judged.native, judged.ways[choice.way.name], **draws)
    ways = _ways(judged, store, share)
    (used,) = (way for way in ways if way.name == choice.way.name)
    return SteeringCell(
        source=hop.source,
        target=hop.target,
        concept=judged.concept,
        site=hop.target_site,
        role=hop.place.role,
        strength=choice.strength,
        way=choice.way.name,
        level=level(carried.retention),
        retention=carried.retention,
        base=carried.base,
        native=carried.native,
        carried=carried.carried,
        controls=_controls(judged, share),
        held_out_r2=used.held_out_r2,
        ways=ways,
        places=tuple(_place(each, draws) for each in choice.visited),
        together=None if judged.together is None else share(judged.together),
        native_p=stands_out(judged.native, judged.controls[RELABELLED]),
        cosine_to_native=cosine(judged.native_direction, judged.vector),
        neutral=tuple(
            NeutralRow(name=name, nll=nll, kl=kl) for name, (nll, kl) in judged.neutral.items()
        ),
        judged=_judged(run, judged, draws),
        samples=tuple(
            Sample(prompt=prompt, base=base_text, native=native_text, carried=carried_text)
            for prompt, base_text, native_text, carried_text in zip(
                judged.prompts,
                *(judged.samples[n] for n in ("base", "native", "carried")),
                strict=True,
            )
        ),
        curve=_curve(choice.curves, run.steers.strengths),
        map_bytes=len(store.get(choice.way.map_address)),
        map_address=choice.way.map_address,
        vector_address=address(judged.vector.tobytes().hex()),
    )


def _curve(
    curves: Mapping[str, np.ndarray], strengths: Sequence[float]
) -> tuple[StrengthPoint, ...]:
    signed = sorted((*strengths, *(-each for each in strengths)))
    return tuple(
        StrengthPoint(strength=at, **{name: float(of[number]) for name, of in curves.items()})
        for number, at in enumerate(signed)
    )


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


def _cache_cell(run: RunFile, store: Store, handed: Handed) -> CacheCell:
    section, handing = run.kv_cache, handed.handing
    assert section is not None, "only a run with the section hands caches over"
    place = handing.maps[CARRIED]
    report = json.loads(store.get(report_address(place)))
    return cache_cell(
        handing.source.name,
        handing.target.name,
        handed.nats,
        {share: again(share) for share in section.again},
        {name: len(store.get(to)) for name, to in handing.maps.items() if name not in MAPS},
        handed.shorter,
        {part: right(part) for part in PARTS} if section.losses else {},
        way="ridge",
        held_out_r2=float(np.mean(list(report["held_out_r2"].values()))),
        heads=report["heads_r2"],
        map_bytes=len(store.get(place)),
        map_address=place,
        cached_characters=section.cached,
        judged_characters=section.judged,
        draws=section.bootstrap_draws,
        seed=run.seed,
    )


def _adapter_cell(run: RunFile, adapted: Adapted) -> AdapterCell:
    section, carried = run.lora, adapted.carried
    assert section is not None, "only a run with the section carries adapters"
    return adapter_cell(
        adapted.source,
        adapted.target,
        Judging(
            SKILLS[adapted.skill], carried.held, adapted.test, section.bootstrap_draws, run.seed
        ),
        {
            name: Effort(made.held_out, made.tokens, made.seconds)
            for name, made in carried.made.items()
        },
        adapted.answers,
        way=carried.way,
        rank=section.rank,
        map_bytes=sum(len(content) for content in adapted.files.values()),
        map_address=carried.chosen.to,
    )


def _prompt_cell(run: RunFile, of: Prompted, models: Mapping[str, ModelFacts]) -> PromptCell:
    section = run.soft_prompt
    assert section is not None, "only a run with the section carries soft prompts"
    return prompt_cell(
        of.source,
        of.target,
        Judging(SKILLS[of.skill], of.held, of.test, section.bootstrap_draws, run.seed),
        of.efforts,
        way=of.way,
        site=of.site,
        count=section.count,
        learned=of.learned,
        parameters=models[of.target].parameters,
        map_bytes=len(of.latents),
        map_address=hashlib.sha256(of.latents).hexdigest(),
    )


def _ways(judged: Judged, store: Store, share: Share) -> tuple[WayScore, ...]:
    choice = judged.choice
    native = choice.setting.slopes.mean()
    scores = []
    for name, way in choice.ways.items():
        report = json.loads(store.get(report_address(way.map_address)))
        dev = float(choice.tried[name].mean() / native)
        scores.append(
            WayScore(
                name=name,
                held_out_r2=report["held_out_r2"],
                dev=dev,
                retention=share(judged.ways[name]),
            )
        )
    return tuple(scores)


def _judged(run: RunFile, of: Judged, draws: dict[str, int]) -> tuple[JudgedRow, ...]:
    (suite,) = (each.suite for each in run.steers.concepts if each.name == of.concept)
    return tuple(judge_written(JUDGES[name], of.written, **draws) for name in SUITES[suite].judges)


def _place(visited: Visited, draws: dict[str, int]) -> PlaceScore:
    return PlaceScore(
        site=visited.hop.target_site,
        role=visited.hop.place.role,
        strength=visited.setting.strength,
        native=visited.setting.effect,
        retention=visited.kept(**draws),
    )


def _controls(judged: Judged, share: Share) -> tuple[Control, ...]:
    native = judged.native.mean()
    means = {name: share(draws.mean(0)) for name, draws in judged.controls.items()}
    return tuple(
        Control(name=name, retention=interval, spread=_spread(judged.controls[name] / native))
        for name, interval in means.items()
        if interval is not None
    )


def _spread(shares: np.ndarray) -> Spread | None:
    """The share of each draw [k, p], where there are several."""
    return Spread(shares=tuple(shares.mean(1).tolist())) if len(shares) > 1 else None


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
