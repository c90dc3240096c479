"""What the prior says of every ordered pair of a run, from configurations and vocabularies."""

from itertools import combinations, permutations
from pathlib import Path

from actors.catalog import Entry, ModelSpec
from actors.checkpoints import read_json
from actors.fleet import find, fleet
from actors.vocabularies import overlap, vocabulary, vocabulary_overlap
from actors.weights import default_cache, prepared
from evaluation.compatibility import prior
from evaluation.matrix import PriorScore
from jobs.config import RunFile

UPSCALED = "upscaled"


def priors(run: RunFile) -> tuple[PriorScore, ...]:
    """Of the pairs of which both models are in the catalog, or their checkpoints here."""
    entries = {spec.name: of for spec in run.models if (of := _entry(spec)) is not None}
    here = {spec.name: prepared(spec, default_cache()) for spec in run.models}
    # Each is read once: a large one takes a second.
    known = {name: vocabulary(at) for name, at in here.items() if at and _tells(at)}
    shared = {
        frozenset(pair): overlap(*(known[name] for name in pair)) for pair in combinations(known, 2)
    }
    found = []
    for source, target in permutations(entries, 2):
        of = prior(entries[source], entries[target], shared.get(frozenset((source, target))))
        found.append(PriorScore(source=source, target=target, score=of.score))
    return tuple(found)


def vocabularies(one: Path | None, other: Path | None) -> float | None:
    """The share of the smaller vocabulary that the other has too, measured where the tokenizers of
    both checkpoints are on this machine."""
    if one is None or other is None or not (_tells(one) and _tells(other)):
        return None
    return vocabulary_overlap(one, other)


def _tells(checkpoint: Path) -> bool:
    return (checkpoint / "tokenizer.json").is_file()


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
