"""A cell of the matrix as a value: what is known of every cargo that is carried from one model into
another, and what each says of itself (`evaluation.cargos`).

Numbers that could not be computed are NaN here and null in JSON.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from evaluation.flat import Own, bounds, slug
from evaluation.retention import Interval, Level, Measured
from evaluation.wording import titled

Key = tuple[str, str, str, str]  # source, target, cargo, concept


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


class Said(NamedTuple):
    """How people call a cargo: in a line, at the head of one, what there is to keep of it, and what
    several of it are."""

    short: str
    title: str
    native: str
    several: str


class Tried(NamedTuple):
    """Another way to carry, what sets it apart, and what it keeps."""

    label: str
    note: str
    retention: Interval | None


class Cell(Value):
    """What is known of every cargo: the target alone, with its own, with what is carried into it.

    `way` is how it was carried; `base`, `native` and `carried` are in the unit of the cargo.
    """

    said: ClassVar[Said]
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

    @property
    def cost(self) -> float | None:
        """What it does to text that has nothing to do with it, as a multiple of what native does at
        the same effect; None where that is not measured."""
        return None

    @abstractmethod
    def own(self) -> Own:
        """What is recorded of it beside what all cells have."""

    @abstractmethod
    def tried(self) -> Iterator[Tried]:
        """What was carried otherwise than by the way that is used."""

    def evidence(self) -> Iterator[str]:
        """What stands behind its retention, for a terminal."""
        yield from ()


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

    def metrics(self) -> dict[str, float]:
        """What is recorded of it."""
        way = f"way.{slug(self.name)}"
        return {
            f"{way}.loss_before": self.loss_before,
            f"{way}.loss_after": self.loss_after,
            f"{way}.tokens": float(self.tokens),
            f"{way}.seconds": self.seconds,
            f"{way}.held": self.held,
            **bounds(f"{way}.retention", self.retention),
        }


class TrainedCell(Cell):
    """What is known of a cargo that is trained: judged by a skill on test items, in `unit`.

    `way` is the one of `ways` that held items chose. What is native was taught by `native_tokens`
    of the skill's own lessons, in `native_seconds`.
    """

    unit: str
    items: int
    ways: tuple[TrainedWay, ...]
    native_tokens: int
    native_seconds: Measured

    def effort(self) -> dict[str, float]:
        """What is recorded of how it was taught and judged."""
        metrics = {
            "items": float(self.items),
            "native.tokens": float(self.native_tokens),
            "native.seconds": self.native_seconds,
        }
        for score in self.ways:
            metrics |= score.metrics()
        return metrics

    def tried(self) -> Iterator[Tried]:
        return (Tried(titled(of.name), "", of.retention) for of in self.ways if of.name != self.way)
