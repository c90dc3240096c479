"""What is known of an adapter that was carried, out of how well every item of a skill is done."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from evaluation.cells import Said, TrainedCell
from evaluation.flat import Own, bounds
from evaluation.retention import level
from evaluation.safety import Drift, measure_drift
from evaluation.skill import UNITS
from evaluation.trained_ways import BASE, NATIVE, Effort, Judging
from evaluation.wording import spelt


class AdapterCell(TrainedCell):
    """A LoRA adapter, judged by the skill that it teaches, on test items, in `unit`.

    `way` is the one of `ways` that held items chose. Native is an adapter of the same rank that the
    skill's own lessons teach the target: `native_tokens` of them, in `native_seconds`. `safety` is
    of the carried adapter, and `native_safety` of the native one.
    """

    said: ClassVar = Said("adapters", "LoRA adapters", "what the target gains by its own", "skills")
    cargo: Literal["lora"] = "lora"
    rank: int
    safety: Drift | None = None
    native_safety: Drift | None = None

    def own(self) -> Own:
        metrics = {"rank": float(self.rank), **self.effort()}
        for name, of in (("safety", self.safety), ("native.safety", self.native_safety)):
            if of is not None:
                for part, share in vars(of).items():
                    metrics |= bounds(f"{name}.{part}", share)
        return Own(
            files=("adapter_config.json", "adapter_model.safetensors"),
            facts={"rank": self.rank, "unit": self.unit, "items": self.items},
            metrics=metrics,
        )

    def evidence(self) -> Iterator[str]:
        """What each way keeps, and what it read for that beside what the native adapter did."""
        for way in self.ways:
            yield f"{way.name} {spelt(way.retention)}, {way.tokens:,} tokens"
        reached = f"{self.base.value:.3f} to {self.native.value:.3f}"
        yield f"native {self.native_tokens:,} tokens, {reached}"
        yield self.unit
        if self.safety is not None:
            refused = f"{self.safety.harmful_before.value:.0%} refused before"
            drift = spelt(self.safety.drift)
            yield f"harmful requests are answered more often by {drift}, {refused}"
            yield f"the judge of refusals errs in {spelt(self.safety.error)}"


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
