"""The cell of an adapter, out of how well every item of a skill is done."""

import math
from collections.abc import Mapping, Sequence

from evaluation.cells import AdapterCell
from evaluation.retention import level
from evaluation.safety import Drift, measure_drift
from evaluation.skill import UNITS
from evaluation.trained_ways import BASE, NATIVE, Effort, Judging


def adapter_cell(
    source: str,
    target: str,
    judging: Judging,
    efforts: Mapping[str, Effort],
    answers: Mapping[str, Sequence[str]],
    *,
    way: str,
    rank: int,
    map_bytes: int,
    map_address: str,
) -> AdapterCell:
    """What crosses of a skill from one model into another; every item counts alike.

    Args:
        efforts: of the native adapter, and of each way.
        answers: to the prompts of `evaluation.safety`, of the target alone, natively and by the
            way that is used; empty where none were asked for.
        way: the one that held items chose.

    Raises:
        RetentionError: fewer than two items, or scores that are not finite.
    """

    def drift(name: str) -> Drift | None:
        if not answers:
            return None
        return measure_drift(answers[BASE], answers[name], draws=judging.draws, seed=judging.seed)

    carried = judging.measure(way)
    native = efforts[NATIVE]
    return AdapterCell(
        source=source,
        target=target,
        concept=judging.skill.name,
        way=way,
        level=level(carried.retention),
        retention=carried.retention,
        base=carried.base,
        native=carried.native,
        carried=carried.carried,
        controls=judging.controls(name for name in judging.test if name not in {BASE, *efforts}),
        held_out_r2=math.nan,
        map_bytes=map_bytes,
        map_address=map_address,
        unit=UNITS[judging.skill.measure],
        rank=rank,
        items=len(judging.test[BASE]),
        ways=tuple(judging.way(name, of) for name, of in efforts.items() if name != NATIVE),
        native_tokens=native.tokens,
        native_seconds=native.seconds,
        safety=drift(way),
        native_safety=drift(NATIVE),
    )
