"""Which likeness of layers tells how much of an adapter crosses.

Over the directions of which a closed form is recorded for tweets (`benchmarks.lora_tables`,
`benchmarks.lora_twins`): the share of the target's layers with a partner by each criterion, and how
alike the best partners are on average, beside the best closed form's retention.

    python -m benchmarks.lora_coverage
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

from actors.anchors import batches
from actors.catalog import Derivation, ModelSpec
from actors.fleet import find, spec
from actors.reading import activations
from alignment.coverage import coverage
from alignment.similarity import Similarity, compare
from benchmarks.adapter_carriers import paired
from benchmarks.adapters import Model, Run, live
from benchmarks.lora_twins import RECIPES, SKILL, TEXTS
from benchmarks.record import RESULTS, kept, record
from evaluation.predictors import Point, predictor

SOLVED = "solved on own texts"
BASE, OTHER = "smollm2-135m-instruct", "gemma-3-270m"


def main() -> None:
    """Measure and record."""
    anchors, retentions = Run.read().texts.anchors[:TEXTS], dict(_recorded())
    points = []
    for name, base, other in _pairs():
        found = _compared(base, other, anchors)
        directions = ((BASE, name, found), (name, BASE, found.swapped))
        points += [
            Point(one, two, _known(of), retentions[one, two])
            for one, two, of in directions
            if (one, two) in retentions
        ]
    told = [predictor(name, points) for name in points[0].known]
    record(
        "lora_coverage",
        {
            "skill": SKILL,
            "texts": TEXTS,
            "pairs": {f"{each.source} -> {each.target}": asdict(each) for each in points},
            "spearman": {each.name: kept(each.spearman) for each in told},
            "off_by": {each.name: each.error for each in told},
            "mean_off_by": told[0].naive,
        },
    )


def _pairs() -> Iterator[tuple[str, Model, Model]]:
    """The base with each of the others, one after the other: their name comes first."""
    plain = spec(find(BASE))
    base = live(plain)
    yield OTHER, base, live(spec(find(OTHER)))
    for name, of in RECIPES.items():
        yield name, base, live(ModelSpec(name=name, derived=Derivation(base=plain, **of)))


def _compared(one: Model, other: Model, texts: Sequence[str]) -> Similarity:
    (shard,) = batches(texts, shard_texts=TEXTS, batch_texts=8)
    reads = [
        partial(
            activations,
            model.engine,
            model.facts.fingerprint,
            sites=[f"residual.{layer}" for layer in range(len(model.engine.blocks))],
        )
        for model in (one, other)
    ]
    return compare(*([*of.values()] for of in paired(shard, reads)))


def _known(found: Similarity) -> dict[str, float]:
    covered = coverage(found)
    return {
        "layers above chance": covered.above_null,
        "layers above 0.7, standardised": covered.standardised,
        "layers above 0.7, raw": covered.raw,
        "mean CKA of the best layer, standardised": float(found.cka.amax(0).mean()),
        "mean CKA of the best layer, raw": float(found.cka_raw.amax(0).mean()),
    }


def _recorded() -> Iterator[tuple[tuple[str, str], float]]:
    """Of each direction, the retention of the closed form that keeps most."""
    for file in sorted(RESULTS.glob("lora_twins*.json")):
        for direction, of in json.loads(file.read_text())["crossings"].items():
            one, _, two = direction.partition(" -> ")
            shares = [share["value"] for share in of["retention"].values() if share]
            yield (one, two), max(shares)
    for cell in json.loads((RESULTS / "lora_tables.json").read_text())["cells"]:
        ways = {way["name"]: way["retention"] for way in cell["ways"]}
        if cell["concept"] == SKILL and ways.get(SOLVED):
            yield (cell["source"], cell["target"]), ways[SOLVED]["value"]


if __name__ == "__main__":
    main()
