"""Takes the steering vectors of a run out of its models.

Shapes: d width.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from actors.cargo.steering import difference_of_means
from actors.catalog import ModelFacts
from jobs.config import RunFile
from jobs.texts import Sides, Texts
from jobs.units import Arrays, Asking, Unit
from jobs.work import mapped_sites, site_of


@dataclass(frozen=True, eq=False)
class Vectors:
    """What one model says of the concepts at one role: directions [d]."""

    concept: np.ndarray
    other: np.ndarray


def extract(
    run: RunFile, texts: Texts, models: Collection[ModelFacts], asking: Asking
) -> dict[tuple[str, str], Vectors]:
    """The vectors of models of one wave, by model and role."""
    units, places = [], []
    for facts in models:
        for concept, sides in (("concept", texts.concept), ("other", texts.other)):
            units.append(_extraction(run, facts, sides))
            places.append((facts.name, concept))
    answers = asking.complete("extracting vectors", units)
    found = dict(zip(places, answers, strict=True))
    return {
        (facts.name, role): Vectors(
            *(found[facts.name, kind][site_of(run, role, facts)] for kind in ("concept", "other"))
        )
        for facts in models
        for role in run.maps.roles
    }


def _extraction(run: RunFile, facts: ModelFacts, sides: Sides) -> Unit:
    sites = mapped_sites(run, facts)
    positive = len(sides.positive)

    def difference(pools: Arrays) -> Arrays:
        return {
            site: difference_of_means(points[:positive], points[positive:])
            for site, points in pools.items()
        }

    texts = (*sides.positive, *sides.negative)
    question = [sites, sides.positive, sides.negative]
    return Unit(facts, "pooled", (texts, sites), question, difference)
