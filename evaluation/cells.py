"""A cell of the matrix as a value: one cargo carried from one model into another.

Numbers that could not be computed are NaN here and null in JSON.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evaluation.retention import Interval, Level, Measured
from evaluation.safety import Drift

Key = tuple[str, str, str, str]  # source, target, cargo, concept
CHANCE = 0.05
EQUAL_EFFECT = "carried, equal effect"  # the row of neutral text at the strength that equals native


class Value(BaseModel):
    """A part of a matrix: never changed, and NaN in it is null in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Spread(Value):
    """Effects of many random directions of the carried norm, as shares of the native effect."""

    shares: tuple[Measured, ...]

    @property
    def count(self) -> int:
        return len(self.shares)

    @property
    def largest(self) -> float:
        """The share furthest from zero, without its sign."""
        return max((abs(share) for share in self.shares), default=0.0)


class Control(Value):
    """Something that should carry nothing: its effect as a share of the native effect."""

    name: str
    retention: Interval
    spread: Spread | None = None


def controls(shares: Mapping[str, Interval | None]) -> tuple[Control, ...]:
    """Those of which there is a share, by name."""
    return tuple(Control(name=name, retention=of) for name, of in shares.items() if of is not None)


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


class AgainScore(Value):
    """Retention where the target reads a share of the cached tokens, the last ones, again."""

    share: float
    retention: Interval | None


class ContentScore(Value):
    """Texts of one kind, what the target gains there by its own cache (nats per token), and the
    share of it that is kept."""

    name: str
    texts: int
    gain: float
    retention: Interval | None


class LengthScore(Value):
    """Texts of which so many of the last characters are cached, what the target gains there by its
    own cache (nats per token), and the share of it that is kept."""

    characters: int
    gain: float
    retention: Interval | None


class LossScore(Value):
    """A part of what is carried, and what putting it right gives back of all that is lost."""

    part: str
    given_back: Interval | None


class SmallScore(Value):
    """A map that is smaller than the one that is used: its name, its bytes, and what it keeps."""

    name: str
    map_bytes: int
    retention: Interval | None


class TrainedWay(Value):
    """One way to carry that is trained: what it lost on held-out texts before and after, how many
    tokens the target read for it and how long that took, and its retention: on held items, by which
    the way is chosen, and on test."""

    name: str
    loss_before: Measured
    loss_after: Measured
    tokens: int
    seconds: Measured
    held: Measured
    retention: Interval | None


class Cell(Value):
    """What is known of every cargo: the target alone, with its own, with what is carried into it.

    `way` is how it was carried; `base`, `native` and `carried` are in the unit of the cargo.
    """

    source: str
    target: str
    cargo: str
    concept: str
    way: str
    level: Level
    retention: Interval | None
    base: Interval
    native: Interval
    carried: Interval
    controls: tuple[Control, ...]
    held_out_r2: Measured
    map_bytes: int
    map_address: str

    @property
    def key(self) -> Key:
        return self.source, self.target, self.cargo, self.concept

    @property
    def is_real(self) -> bool:
        """Whether native does more than chance: the interval of its effect leaves out zero."""
        return self.retention is not None

    @property
    def worst_control(self) -> float | None:
        """The largest control, as a share of native without its sign: means and single draws."""
        shares = [abs(control.retention.value) for control in self.controls]
        return max(shares, default=None)


class SteeringCell(Cell):
    """A steering vector, judged on test prompts by the slope of the propensity, in nats.

    `way` is the one of `ways` that dev chose. `native_p` is how rarely a vector of the same texts,
    their sides drawn at random, does as much as the native one. `together` is the retention of the
    mean of all sources' vectors, where there are several.
    """

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


class CacheCell(Cell):
    """A KV cache, judged on test texts by what follows it, in nats per token: less is better.

    `way` is the name of the map. `tokens` is the retention of a map that reads nothing of the
    source but only what the target itself knows of its tokens: what is carried beyond that has
    crossed. `heads` are held-out R² of maps from the one layer at the same depth, by how its heads
    are told out. A text is cached up to about `cached_characters`; what follows is judged.
    `lengths` are of the same texts with less of them cached, `losses` of parts that the target puts
    right.
    """

    cargo: Literal["kv_cache"] = "kv_cache"
    concept: Literal["continuation"] = "continuation"
    tokens: Interval | None
    heads: dict[str, Measured]
    again: tuple[AgainScore, ...]
    small: tuple[SmallScore, ...]
    contents: tuple[ContentScore, ...]
    lengths: tuple[LengthScore, ...] = ()
    losses: tuple[LossScore, ...] = ()
    cached_characters: int
    judged_characters: int
    texts: int


class AdapterCell(Cell):
    """A LoRA adapter, judged by the skill that it teaches, on test items, in `unit`.

    `way` is the one of `ways` that held items chose. Native is an adapter of the same rank that the
    skill's own lessons teach the target: `native_tokens` of them, in `native_seconds`. `safety` is
    of the carried adapter, and `native_safety` of the native one.
    """

    cargo: Literal["lora"] = "lora"
    unit: str
    rank: int
    items: int
    ways: tuple[TrainedWay, ...]
    native_tokens: int
    native_seconds: Measured
    safety: Drift | None = None
    native_safety: Drift | None = None


class PromptCell(Cell):
    """Texts that the target reads as `count` latents of what the source holds of them, judged by a
    skill on test items, in `unit`.

    `site` is where the source is read. The target alone is asked without the text. Native is a
    prompt of as many rows, taught by the same lessons (`native_tokens` of them), before the text as
    it is. `way` is the one of `ways` that held items chose. `relay` is what is kept where the
    target, with that prompt, reads no more of the text than as many tokens, and `of_bytes` where
    latents are made of the text's bytes, which no model has read. The adapter of the target has
    `learned` numbers, and the target itself `parameters`.
    """

    cargo: Literal["soft_prompt"] = "soft_prompt"
    site: str
    unit: str
    count: int
    items: int
    ways: tuple[TrainedWay, ...]
    relay: Interval | None
    of_bytes: Interval | None = None
    learned: int
    parameters: int
    native_tokens: int
    native_seconds: Measured


AnyCell = SteeringCell | CacheCell | AdapterCell | PromptCell
