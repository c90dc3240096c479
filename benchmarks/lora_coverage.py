"""Which likeness of layers tells how much of an adapter crosses.

Over the directions of which a closed form is recorded for tweets (`benchmarks.lora_tables`,
`benchmarks.lora_twins`): the share of the target's layers with a partner by each criterion, and how
alike the best partners are on average, beside the best closed form's retention.

    python -m benchmarks.lora_coverage
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from actors.fleet import find, spec
from alignment.coverage import coverage
from alignment.similarity import Similarity
from benchmarks.adapters import Model, Run, live
from benchmarks.lora_twins import BASE, RECIPES, SKILL, TEXTS, compared, twin
from benchmarks.record import RESULTS, kept, record
from evaluation.predictors import Point, predictor

SOLVED = "solved on own texts"
OTHER = "gemma-3-270m"


def main() -> None:
    """Measure and record."""
    anchors, retentions = Run.read().texts.anchors, dict(_recorded())
    base, points = live(spec(find(BASE))), []
    for name, other in _others():
        found = compared(base, other, anchors)
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


def _others() -> Iterator[tuple[str, Model]]:
    """What the base is compared to, one after the other."""
    yield OTHER, live(spec(find(OTHER)))
    for name in RECIPES:
        yield name, twin(name)


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
