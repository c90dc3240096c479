"""The cell of an adapter, out of how well every item of a skill is done."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.cells import AdapterCell, AdapterWay, controls
from evaluation.retention import Interval, Retention, level, measure_retention
from evaluation.safety import Drift, measure_drift
from evaluation.skill import UNITS, Skill

BASE, NATIVE = "base", "native"
Scores = Mapping[str, NDArray[np.float64]]  # [items], by what the target has on; more is better


@dataclass(frozen=True)
class Effort:
    """What an adapter cost: its loss on held-out texts before any step and after each epoch, of
    which the best is kept, how many tokens were read for it, and how long that took."""

    losses: Sequence[float]
    tokens: int
    seconds: float


def adapter_cell(
    source: str,
    target: str,
    skill: Skill,
    held: Scores,
    test: Scores,
    efforts: Mapping[str, Effort],
    answers: Mapping[str, Sequence[str]],
    *,
    way: str,
    rank: int,
    seconds: float,
    map_bytes: int,
    map_address: str,
    draws: int,
    seed: int,
) -> AdapterCell:
    """What crosses of a skill from one model into another; every item counts alike.

    Args:
        held: on held items, of the target alone, natively and by each way.
        test: on test items, of those and of controls.
        efforts: of the native adapter, and of each way.
        answers: to the prompts of `evaluation.safety`, of the target alone, natively and by the
            way that is used; empty where none were asked for.
        way: the one that held items chose.
        draws: number of resamples of the items, by which intervals are found.
        seed: every interval is a function of the scores, the draws and the seed.

    Raises:
        RetentionError: fewer than two items, or scores that are not finite.
    """
    sign = -1.0 if skill.measure == "bits" else 1.0  # of bits less is better

    def measure(name: str) -> Retention:
        columns = (sign * test[each] for each in (BASE, NATIVE, name))
        return measure_retention(*columns, draws=draws, seed=seed)

    def share(name: str) -> Interval | None:
        return measure(name).retention

    def drift(name: str) -> Drift | None:
        if not answers:
            return None
        return measure_drift(answers[BASE], answers[name], draws=draws, seed=seed)

    carried = measure(way)
    native = efforts[NATIVE]
    return AdapterCell(
        source=source,
        target=target,
        concept=skill.name,
        way=way,
        level=level(carried.retention),
        retention=carried.retention,
        base=carried.base,
        native=carried.native,
        carried=carried.carried,
        controls=controls({name: share(name) for name in test if name not in {BASE, *efforts}}),
        held_out_r2=math.nan,
        seconds=seconds,
        map_bytes=map_bytes,
        map_address=map_address,
        unit=UNITS[skill.measure],
        rank=rank,
        items=len(test[BASE]),
        ways=tuple(
            _way(name, of, held, share(name)) for name, of in efforts.items() if name != NATIVE
        ),
        native_tokens=native.tokens,
        native_seconds=native.seconds,
        safety=drift(way),
        native_safety=drift(NATIVE),
    )


def _way(name: str, effort: Effort, held: Scores, retention: Interval | None) -> AdapterWay:
    base, native, carried = (float(held[each].mean()) for each in (BASE, NATIVE, name))
    return AdapterWay(
        name=name,
        loss_before=effort.losses[0],
        loss_after=min(effort.losses[1:]),
        tokens=effort.tokens,
        seconds=effort.seconds,
        held=(carried - base) / (native - base) if native != base else math.nan,
        retention=retention,
    )
