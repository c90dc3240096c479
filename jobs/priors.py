"""What the prior says of every ordered pair of a run, from configurations alone."""

from itertools import permutations

from actors.catalog import Entry, ModelSpec
from actors.checkpoints import read_json
from actors.fleet import find, fleet
from actors.weights import default_cache, prepared
from evaluation.compatibility import prior
from evaluation.matrix import PriorScore
from jobs.config import RunFile

UPSCALED = "upscaled"


def priors(run: RunFile) -> tuple[PriorScore, ...]:
    """Of the pairs of which both models are in the catalog, or their checkpoints here."""
    entries = {spec.name: of for spec in run.models if (of := _entry(spec)) is not None}
    return tuple(
        PriorScore(source=source, target=target, score=prior(*both).score)
        for (source, target), both in zip(
            permutations(entries, 2), permutations(entries.values(), 2), strict=True
        )
    )


def _entry(spec: ModelSpec) -> Entry | None:
    """The catalog's; of a derived model that of its base, with a configuration of its own."""
    if spec.derived is None and spec.name in fleet():
        return find(spec.name)
    checkpoint = prepared(spec, default_cache())
    if checkpoint is None:
        return None
    config = read_json(checkpoint / "config.json")
    base = None if spec.derived is None else _entry(spec.derived.base)
    if base is None or spec.derived is None:
        return Entry(name=spec.name, config=config)
    depth = base.blueprint.layers if spec.derived.recipe == UPSCALED else None
    told = {"name": spec.name, "config": config, "depth_upscaled_from": depth}
    return Entry.model_validate(base.model_dump() | told)  # with a blueprint of its own
