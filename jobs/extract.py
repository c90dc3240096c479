"""Takes the steering vectors of a run out of its models.

Shapes: n texts of each side, d width.
"""

from collections.abc import Collection

import numpy as np

from actors.catalog import ModelFacts
from alignment.agreement import compare
from alignment.contrast import DirectionError
from alignment.directions import DIRECTIONS
from evaluation.matrix import GroupAgreement
from jobs.config import RunFile
from jobs.texts import Sides, Texts
from jobs.units import Arrays, Asking, Unit
from jobs.work import Place, mapped_sites, places_of, site_of

# By model, place and concept: the direction, and then those of its texts with sides drawn at
# random, [1 + k, d].
Vectors = dict[tuple[str, Place, str], np.ndarray]


def extract(run: RunFile, texts: Texts, models: Collection[ModelFacts], asking: Asking) -> Vectors:
    """The vectors of models of one wave.

    Raises:
        DirectionError: a model does not tell the sides of a concept apart.
    """
    if run.steering is None:
        return {}
    recipe = DIRECTIONS[run.steering.direction]()
    places = [(facts, concept) for facts in models for concept in texts.sides]
    units = [_reading(run, facts, texts.sides[concept]) for facts, concept in places]
    answers = asking.complete("extracting vectors", units)
    vectors: Vectors = {}
    for (facts, concept), pools in zip(places, answers, strict=True):
        sides = texts.sides[concept]
        drawn = {"draws": run.steering.relabellings, "seed": run.seed}
        for place in places_of(run):
            points = pools[site_of(place, facts)]
            both = points[: len(sides.positive)], points[len(sides.positive) :]
            by_chance = recipe.by_chance(*both, **drawn)
            vectors[facts.name, place, concept] = np.stack([recipe.direction(*both), *by_chance])
    return vectors


def agreements(
    run: RunFile, texts: Texts, models: Collection[ModelFacts], asking: Asking
) -> list[GroupAgreement]:
    """How far the groups of each concept agree, at every mapped site of these models.

    It stands on the same answers as `extract`. Texts that are no pairs are compared in the order of
    their hashes, which is as good as drawing lots: the direction is the same however they are put
    together.

    Raises:
        DirectionError: a model does not tell the sides of a group apart.
    """
    grouped = {concept: sides for concept, sides in texts.sides.items() if sides.groups}
    if not grouped:
        return []
    places = [(facts, concept) for facts in models for concept in grouped]
    units = [_reading(run, facts, grouped[concept]) for facts, concept in places]
    answers = asking.complete("comparing groups", units)
    return [
        _agreement(run, facts, concept, site, grouped[concept], pools[site])
        for (facts, concept), pools in zip(places, answers, strict=True)
        for site in mapped_sites(run, facts)
    ]


def _agreement(
    run: RunFile, facts: ModelFacts, concept: str, site: str, sides: Sides, points: np.ndarray
) -> GroupAgreement:
    count = len(sides.positive)
    of = np.array(sides.groups)
    members = {name: np.flatnonzero(of == name) for name in dict.fromkeys(sides.groups)}
    groups = {name: (points[rows], points[count + rows]) for name, rows in members.items()}
    draws = run.steers.bootstrap_draws
    try:
        found = compare(groups, draws=draws, permutations=draws, seed=run.seed)
    except DirectionError as error:
        raise DirectionError(f"{concept} in {facts.name} at {site}: {error}") from None
    return GroupAgreement(
        concept=concept,
        model=facts.name,
        site=site,
        names=found.names,
        cosine=found.cosine.tolist(),
        debiased=found.debiased.tolist(),
        low=found.low.tolist(),
        high=found.high.tolist(),
        null_95=found.null_95,
    )


def _reading(run: RunFile, facts: ModelFacts, sides: Sides) -> Unit:
    """What stands for each text at every mapped site: the positive ones, then the negative."""
    sites = mapped_sites(run, facts)
    texts = (*sides.positive, *sides.negative)
    question = [sites, texts, sides.first_words]
    return Unit(facts, "pooled", (texts, sites, sides.first_words), question, _as_read)


def _as_read(pools: Arrays) -> Arrays:
    return pools
