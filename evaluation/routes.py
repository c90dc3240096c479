"""What a cargo keeps on the way through other models, beside the direct way: as a value."""

import numpy as np
from pydantic import field_validator

from evaluation.cells import Control, Key, Value, controls
from evaluation.retention import Interval, Measured, measure_retention


class Route(Value):
    """The best path of two hops or more from a source into a target, judged on test items.

    `path` has all its models, the two ends too. It is best by `expected`, the product of what its
    hops keep on dev. `gain` is what it keeps more than the direct way, both being shares of the
    native effect over the same items. `others` are other ways through models.
    """

    source: str
    target: str
    cargo: str
    concept: str
    path: tuple[str, ...]
    expected: Measured
    direct: Interval
    routed: Interval
    gain: Interval
    others: tuple[Control, ...]

    @property
    def key(self) -> Key:
        return self.source, self.target, self.cargo, self.concept

    @property
    def recommended(self) -> bool:
        """Whether it is better than the direct way beyond chance."""
        return self.gain.low > 0

    @property
    def verdict(self) -> str:
        """The same in words."""
        return "recommended" if self.recommended else "not better than direct"

    @field_validator("path")
    @classmethod
    def _several_hops(cls, path: tuple[str, ...]) -> tuple[str, ...]:
        if len(path) < 3:
            raise ValueError(f"a route goes through another model: {' -> '.join(path)}")
        return path


def route(
    key: Key,
    path: tuple[str, ...],
    expected: float,
    native: np.ndarray,
    direct: np.ndarray,
    routed: np.ndarray,
    others: dict[str, np.ndarray],
    *,
    draws: int,
    seed: int,
) -> Route | None:
    """A route out of effects on the same items, each [p]; None where native has none to share."""
    base = np.zeros_like(native)

    def share(effect: np.ndarray) -> Interval | None:
        return measure_retention(base, native, effect, draws=draws, seed=seed).retention

    one, other, gain = share(direct), share(routed), share(routed - direct)
    if one is None or other is None or gain is None:
        return None
    source, target, cargo, concept = key
    return Route(
        source=source,
        target=target,
        cargo=cargo,
        concept=concept,
        path=path,
        expected=expected,
        direct=one,
        routed=other,
        gain=gain,
        others=controls({name: share(effect) for name, effect in others.items()}),
    )
