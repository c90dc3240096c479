"""What many cells say together: medians over the pairs in which there is a native effect."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from evaluation.cells import Cell

HELD = 0.80  # the low bound from which on a pair counts as held


@dataclass(frozen=True)
class Digest:
    """Cells of one kind, summed up; None where no cell has a native effect that is real.

    `defined` of `count` cells have a native effect whose interval leaves out zero, and in `real` of
    these it is also more than chance; the rest speaks of these alone. `held` is the
    share of them whose interval lies at or above HELD. `controls` is the median retention of each
    control, `cost` that of KL on neutral text as carried over KL as steered natively, where both do
    as much; caches have none.
    """

    name: str
    count: int
    defined: int
    real: int
    retention: float | None
    lowest: float | None
    held: float | None
    controls: dict[str, float]
    cost: float | None

    @property
    def worst_control(self) -> float | None:
        """The control whose median is furthest from zero."""
        return max(self.controls.values(), key=abs, default=None)


def digest(name: str, cells: Sequence[Cell], *, by_chance_too: bool = False) -> Digest:
    """Sum up these cells under a name; `by_chance_too` those whose native effect is not real."""
    defined = [(cell, cell.retention) for cell in cells if cell.retention is not None]
    real = [(cell, share) for cell, share in defined if cell.is_real]
    kept = defined if by_chance_too else real
    controls: dict[str, list[float]] = {}
    for cell, _ in kept:
        for control in cell.controls:
            controls.setdefault(control.name, []).append(control.retention.value)
    return Digest(
        name=name,
        count=len(cells),
        defined=len(defined),
        real=len(real),
        retention=median_of(share.value for _, share in kept),
        lowest=min((share.low for _, share in kept), default=None),
        held=sum(share.low >= HELD for _, share in kept) / len(kept) if kept else None,
        controls={control: median(values) for control, values in controls.items()},
        cost=median_of(cost for cell, _ in kept if (cost := cell.cost) is not None),
    )


def median_of(values: Iterable[float]) -> float | None:
    """None of nothing."""
    found = list(values)
    return median(found) if found else None
