"""What is recorded of a steering cell of a matrix."""

from collections.abc import Iterable
from dataclasses import asdict

from evaluation.cargos.steering import SteeringCell


def figures(cell: SteeringCell) -> dict[str, object]:
    """Retention beside everything it was measured with."""
    return {
        "retention": asdict(cell.retention) if cell.retention else None,
        "native_slope_nats": asdict(cell.native),
        "carried_slope_nats": asdict(cell.carried),
        "site": cell.site,
        "role": cell.role,
        "strength": cell.strength,
        "way": cell.way,
        "held_out_r2": cell.held_out_r2,
        "native_p": cell.native_p,
        "together": asdict(cell.together) if cell.together else None,
        "dev": {way.name: way.dev for way in cell.ways},
        "places": {
            place.site: {
                "native_nats": place.native,
                "retention": place.retention.value if place.retention else None,
            }
            for place in cell.places
        },
        "ways": {w.name: w.retention.value if w.retention else None for w in cell.ways},
        "cosine_to_native": cell.cosine_to_native,
        "controls": {control.name: asdict(control.retention) for control in cell.controls},
        "largest_draws": {c.name: c.spread.largest for c in cell.controls if c.spread},
        "judged": {row.judge: row.model_dump(mode="json") for row in cell.judged},
        "neutral_kl": {row.name: row.kl for row in cell.neutral},
    }


def named(cells: Iterable[SteeringCell]) -> dict[str, dict[str, object]]:
    """Those of several, by pair and concept."""
    return {" -> ".join(cell.key[:2]) + f", {cell.concept}": figures(cell) for cell in cells}
