"""What is known of a steering vector that was carried."""

from collections.abc import Iterator
from math import isfinite
from typing import ClassVar, Literal

from evaluation.cells import Cell, Said, Tried, Value
from evaluation.flat import Own, bounds, slug
from evaluation.retention import Interval, Measured
from evaluation.wording import number, titled

CHANCE = 0.05
EQUAL_EFFECT = "carried, equal effect"  # the row of neutral text at the strength that equals native


class WayScore(Value):
    """One way to carry over one pair: R² of its map on held-out rows, and retention of what it
    carries: on dev, by which it is chosen, and on test."""

    name: str
    held_out_r2: Measured
    dev: Measured
    retention: Interval | None


class PlaceScore(Value):
    """A place that was tried on dev: the effect of the native vector there (nats, at the strength
    that neutral text bears), and the share of it that the best map on held-out rows carries."""

    site: str
    role: str
    strength: Measured
    native: Measured
    retention: Interval | None


class StrengthPoint(Value):
    """Mean log-odds of the behaviour on dev (nats) at a strength, against the direction where that
    is negative: of the native vector, the carried one, and a random direction of that length."""

    strength: Measured
    native: Measured
    carried: Measured
    control: Measured


class JudgedRow(Value):
    """What a judge says of generations: how far its score, from -1 to 1, is moved by the native
    vector, the carried one and a control. `error` is how often the judge is wrong."""

    judge: str
    error: Interval
    native: Interval
    carried: Interval
    control: Interval
    retention: Interval | None


class NeutralRow(Value):
    """The target on neutral text: NLL and KL from the untouched target, both in nats per token."""

    name: str
    nll: Measured
    kl: Measured


class Sample(Value):
    """A prompt, and what the target writes after it: untouched, steered natively, carried."""

    prompt: str
    base: str
    native: str
    carried: str


class SteeringCell(Cell):
    """A steering vector, judged on test prompts by the slope of the propensity, in nats.

    `way` is the one of `ways` that dev chose. `native_p` is how rarely a vector of the same texts,
    their sides drawn at random, does as much as the native one. `together` is the retention of the
    mean of all sources' vectors, where there are several.
    """

    said: ClassVar = Said("vectors", "Steering", "what the target does natively", "concepts")
    cargo: Literal["steering"] = "steering"
    site: str
    role: str
    strength: Measured
    ways: tuple[WayScore, ...]
    places: tuple[PlaceScore, ...]
    together: Interval | None
    native_p: Measured
    cosine_to_native: Measured
    neutral: tuple[NeutralRow, ...]
    judged: tuple[JudgedRow, ...]
    samples: tuple[Sample, ...]
    curve: tuple[StrengthPoint, ...] = ()
    vector_address: str

    @property
    def is_real(self) -> bool:
        """Also that hardly any vector of the same texts with their sides drawn at random does as
        much."""
        return super().is_real and self.native_p <= CHANCE

    def own(self) -> Own:
        where: dict[str, str] = {"site": self.site, "role": self.role}
        metrics = {
            **bounds("together", self.together),
            "native_p": self.native_p,
            "strength": self.strength,
            "cosine_to_native": self.cosine_to_native,
        }
        for score in self.ways:
            metrics[f"way.{slug(score.name)}.held_out_r2"] = score.held_out_r2
            metrics[f"way.{slug(score.name)}.dev"] = score.dev
            metrics |= bounds(f"way.{slug(score.name)}.retention", score.retention)
        for place in self.places:
            metrics[f"place.{slug(place.site)}.native"] = place.native
            metrics |= bounds(f"place.{slug(place.site)}.retention", place.retention)
        for row in self.judged:
            metrics |= bounds(f"judged.{slug(row.judge)}.native", row.native)
            metrics |= bounds(f"judged.{slug(row.judge)}.carried", row.carried)
            metrics |= bounds(f"judged.{slug(row.judge)}.control", row.control)
            metrics |= bounds(f"judged.{slug(row.judge)}.retention", row.retention)
        for row in self.neutral:
            metrics[f"neutral.{slug(row.name)}.nll"] = row.nll
            metrics[f"neutral.{slug(row.name)}.kl"] = row.kl
        return Own(
            files=("map.json", "map.safetensors", "vector.safetensors"),
            facts={**where, "strength": self.strength, "vector_address": self.vector_address},
            tags={**where, "address.vector": self.vector_address},
            metrics=metrics,
        )

    def tried(self) -> Iterator[Tried]:
        for score in self.ways:
            if score.name != self.way:
                note = f"held-out R² {number(score.held_out_r2)}"
                yield Tried(titled(score.name), note, score.retention)
        if self.together is not None:
            yield Tried("All sources", "the mean of their vectors", self.together)

    @property
    def cost(self) -> float | None:
        kl = {row.name: row.kl for row in self.neutral if isfinite(row.kl)}
        if not kl.get("native") or EQUAL_EFFECT not in kl:
            return None
        return kl[EQUAL_EFFECT] / kl["native"]
