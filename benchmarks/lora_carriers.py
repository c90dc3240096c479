"""Adapters carried matrix by matrix, in closed form, by every carrier under one protocol.

Every native adapter of the demo's run of adapters is carried into the other model. Held items
choose how strong the carried change is; test items judge it.

    python -m benchmarks.lora_carriers
"""

import sys

from benchmarks.adapter_carriers import LAMBDA, carried
from benchmarks.adapters import Figures, Model, Run, best_of, retention, scaled, scores
from benchmarks.record import record

TEXTS = 72  # of the anchors
STRENGTHS = (0.25, 0.5, 1.0, 2.0)


def main() -> None:
    """Measure and record."""
    measured()


def measured() -> Figures:
    """By direction, skill and way; recorded as far as it goes."""
    run, crossings = Run.read(), {}
    for name, source, target in run.directions():
        crossings[name] = _crossing(run, source, target)
        record("lora_carriers", {"texts": TEXTS, "lambda": LAMBDA, "crossings": crossings})
    return crossings


def _crossing(run: Run, source: Model, target: Model) -> Figures:
    native = {skill: run.native(source, skill).updates for skill in run.section.skills}
    made = carried(source, target, native, run.texts.anchors[:TEXTS])
    found: Figures = {}
    for skill in native:
        own, items = run.native(target, skill).updates, run.texts.items[skill]
        base, reached = (scores(target, skill, items.test, on) for on in ({}, own))
        of_skill: Figures = {}
        for way, by_skill in made.items():
            tried = {f"{each:g}": scaled(by_skill[skill], each) for each in STRENGTHS}
            strength = best_of(
                tried, lambda on, s=skill, i=items: float(scores(target, s, i.held, on).mean())
            )
            kept = scores(target, skill, items.test, tried[strength])
            of_skill[way] = {"strength": strength, "retention": retention(base, reached, kept)}
            print(target.facts.name, skill, way, of_skill[way], file=sys.stderr)
        found[skill] = of_skill
    return found


if __name__ == "__main__":
    main()
