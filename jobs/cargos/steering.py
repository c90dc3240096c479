"""Steering vectors: carried by maps between sites, and judged by what they make likely.

Shapes: k draws, p prompts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from actors.cargo.steering import cosine
from actors.folder import report_address
from actors.training import Training
from alignment.layers import ROLES
from alignment.maps import map_from_bytes
from cluster.storage import Store, address
from evaluation.cargos.steering import (
    JudgedRow,
    NeutralRow,
    PlaceScore,
    Sample,
    SteeringCell,
    StrengthPoint,
    WayScore,
)
from evaluation.cells import Control, Spread
from evaluation.judges import JUDGES
from evaluation.protocol import stands_out
from evaluation.retention import Interval, level, measure_retention
from evaluation.suites import SUITES
from evaluation.written import judge_written
from jobs.cargo import Came, Cargo, Going
from jobs.choosing import Visited
from jobs.config import RunFile
from jobs.lessons import HELD_OUT, OPENING_WORDS, OPENINGS, train
from jobs.questions import SIGNS
from jobs.routes import ROUTED, measure_routes
from jobs.steer import RELABELLED, Judged, Steerer
from jobs.texts import Texts
from jobs.ways import vector_files
from jobs.workload import TOKENS_PER_WORD, Reading, tokens

Share = Callable[[np.ndarray], Interval | None]


class SteeringVectors(Cargo):
    """Vectors of every concept of a run."""

    fits_sites = True

    def ready(self, run: RunFile) -> None:
        """Raises JudgeError: a judge lacks what it is made from."""
        for concept in run.steers.concepts:
            for judge in SUITES[concept.suite].judges:
                JUDGES[judge].facts()

    def carry(self, going: Going) -> Came:
        run, store = going.run, going.asking.store
        judged = _judged_of(going)
        known = (going.work, going.asking.crew.facts, going.vectors, judged)
        return Came(
            [_cell(run, store, each) for each in judged],
            {each.key: partial(_save, store=store, judged=each) for each in judged},
            measure_routes(run, going.texts, *known, going.asking, going.fitting),
        )

    def readings(self, run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
        steering, roles = run.steers, run.maps.roles
        both, strengths, ways = len(SIGNS), len(steering.strengths), 2 + len(run.maps.fitters)
        places = len(roles) * len(run.maps.kinds)
        above = 1 - sum(ROLES[role] for role in roles) / len(roles)
        prompts = texts.prompts.values()
        dev = sum(tokens(each.dev) for each in prompts)
        test = sum(tokens(each.test) for each in prompts)
        concepts = len(steering.concepts)
        neutral_dev, neutral_test = tokens(texts.neutral_dev), tokens(texts.neutral_test)
        # Of a target itself, whatever the source, and of what each source carries to it.
        on_dev = both * (places * strengths + others * (places + ways))
        on_test = both * (
            1
            + steering.random_directions
            + steering.relabellings
            + others * (ways + steering.shuffles + 2)
        )
        spared = neutral_dev * concepts * both * places * strengths
        spared += neutral_test * (1 + concepts * others * 3 * both)
        judged = sum(bool(SUITES[each.suite].judges) for each in steering.concepts)
        written = 3 * concepts * steering.samples + 3 * both * judged * steering.judged_prompts
        written *= steering.sample_tokens
        rows = (
            sum(len(each.dev) for each in prompts) * on_dev,
            sum(len(each.test) for each in prompts) * on_test,
        )
        stages: tuple[Reading, ...] = (
            Reading(
                "vectors", sum(tokens((*of.positive, *of.negative)) for of in texts.sides.values())
            ),
            Reading("choosing on dev", dev * on_dev, above, rows[0]),
            Reading("measuring on test", test * on_test, above, rows[1]),
            Reading("neutral text", spared, above, spared),
            Reading("samples", others * written, 1.0, others * written),
        )
        if run.routes is not None:
            routed = both * others * len(ROUTED)
            count = sum(len(each.test) for each in prompts) * routed
            stages += (Reading("measuring routes, at most", test * routed, above, count),)
        if steering.trained:
            stages += (_training(others * places, both * concepts, above),)
        return stages


def _judged_of(going: Going) -> list[Judged]:
    """Vectors of every concept, carried and judged, in the order of concepts and pairs."""
    run, work, models = going.run, going.work, going.asking.crew
    going.fitting.complete("fitting maps", [hop.order for hop in work.hops])
    known = (models.facts, going.vectors, going.asking)
    trained = train(run, going.texts, work, *known) if run.steers.trained else {}
    steerers = [
        Steerer(run, concept, going.texts, work, *known, going.fitting, trained)
        for concept in run.steers.concepts
    ]
    # The wave that was read last is still there.
    judged = [
        each
        for wave in reversed(models.waves)
        for steerer in steerers
        for each in steerer.judge(wave)
    ]
    pairs = {(hop.source, hop.target): place for place, hop in enumerate(work.hops)}
    concepts = [concept.name for concept in run.steers.concepts]
    return sorted(judged, key=lambda each: (concepts.index(each.concept), pairs[each.key[:2]]))


def _save(directory: Path, store: Store, judged: Judged) -> Path:
    carried_by = map_from_bytes(store.get(judged.choice.way.map_address))
    return vector_files(directory, carried_by, judged.vector)


def _cell(run: RunFile, store: Store, judged: Judged) -> SteeringCell:
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


def _training(lessons: int, copies: int, above: float) -> Reading:
    """Of a model as the target of so many lessons and the source of as many, at most.

    Each opening is read by every copy, one for each vector and sign. Backwards costs two passes.
    """
    openings = OPENINGS + HELD_OUT
    epochs = Training().epochs * (3 * OPENINGS + HELD_OUT)
    read = lessons * (copies * epochs + (1 + copies) * openings)
    return Reading("training, at most", read * OPENING_WORDS * TOKENS_PER_WORD, above, read)
