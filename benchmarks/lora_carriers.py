"""Adapters carried matrix by matrix, in closed form, by every carrier under one protocol.

Every native adapter of the demo's run of adapters is carried into the other model. Held items
choose how strong the carried change is; test items judge it.

    python -m benchmarks.lora_carriers [SKILL ...]
"""

import sys

from benchmarks.adapter_carriers import LAMBDA, carried
from benchmarks.adapters import Figures, Model, Run, Scored, scaled
from benchmarks.record import record

TEXTS = 72  # of the anchors
STRENGTHS = (0.25, 0.5, 1.0)


def main() -> None:
    """Measure and record."""
    measured(Run.read())


def measured(run: Run) -> Figures:
    """By direction, skill and way; recorded as far as it goes."""
    crossings = {}
    for name, source, target in run.directions():
        crossings[name] = _crossing(run, source, target)
        record("lora_carriers", {"texts": TEXTS, "lambda": LAMBDA, "crossings": crossings})
    return crossings


def _crossing(run: Run, source: Model, target: Model) -> Figures:
    native = {skill: run.native(source, skill).updates for skill in run.section.skills}
    made = carried(source, target, native, run.texts.anchors[:TEXTS])
    found: Figures = {}
    for skill in native:
        scored, of_skill = Scored.of(run, target, skill), Figures()
        for way, by_skill in made.items():
            tried = {each: scaled(by_skill[skill], each) for each in STRENGTHS}
            held = {each: scored.held(on) for each, on in tried.items()}
            best = max(held, key=lambda each, of=held: of[each])
            of_skill[way] = {"strength": best, "retention": scored.test(tried[best])}
            print(target.facts.name, skill, way, of_skill[way], file=sys.stderr)
        found[skill] = of_skill
    return found


if __name__ == "__main__":
    main()
