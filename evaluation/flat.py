"""Names and numbers as MLflow keeps them: flat."""

import re
from dataclasses import dataclass, field

from pydantic import JsonValue

from evaluation.retention import Interval


@dataclass(frozen=True)
class Own:
    """What is recorded of one kind of cell beside what all have: which files are registered, what
    somebody who fetches them has to know, tags to search by, and metrics."""

    files: tuple[str, ...]
    facts: dict[str, JsonValue] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def plain(interval: Interval | None) -> JsonValue:
    """As JSON: value, low, high."""
    return None if interval is None else [interval.value, interval.low, interval.high]


def bounds(name: str, interval: Interval | None) -> dict[str, float]:
    """As metrics: name, name_low and name_high."""
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def slug(name: str) -> str:
    """A name with only the characters that metrics and files may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-")
