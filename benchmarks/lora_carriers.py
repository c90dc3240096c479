"""Adapters carried matrix by matrix, in closed form, by every carrier under one protocol.

Every native adapter of the demo's run of adapters is carried into the other model. Held items
choose how strong the carried change is; test items judge it. Heads and neurons in another order
are found in models of one shape alone (`benchmarks.lora_twins`): what it says of others is kept.

    python -m benchmarks.lora_carriers [--quick] [--into MODEL] [SKILL ...]
"""

import argparse
import json
import sys

from actors.matrices import places, weight
from alignment.carriers.reordered import Reordered
from alignment.crossing import Crossing, NotApplicable
from benchmarks.adapter_carriers import carried
from benchmarks.adapter_deltas import regressed
from benchmarks.adapters import Figures, Model, Run, Scored, Updates, scaled
from benchmarks.record import RESULTS, record

NAME = "lora_carriers"
TEXTS = 72  # of the anchors
LAMBDA = 0.01
STRENGTHS = (0.25, 0.5, 1.0)
NOT_APPLICABLE = "not applicable"


def main() -> None:
    """Measure and record, a file for each direction."""
    parser = argparse.ArgumentParser()
    parser.add_argument("skills", nargs="*")
    parser.add_argument("--into")
    parser.add_argument("--quick", action="store_true", help="a quick run (adapters.Run)")
    asked = parser.parse_args()
    run = Run.read(asked.skills, quick=asked.quick)
    for name, source, target in run.directions():
        into = target.facts.name
        if asked.into in (None, into):
            crossing = _crossing(run, source, target)
            record(
                f"{NAME}.into-{into}",
                {
                    "texts": TEXTS,
                    "lambda": LAMBDA,
                    "dtype": target.facts.dtype,
                    "crossings": {name: crossing},
                },
            )


def recorded() -> Figures:
    """By direction, skill and way, of all directions that are recorded."""
    found: Figures = {}
    for file in sorted(RESULTS.glob(f"{NAME}.*.json")):
        found |= json.loads(file.read_text())["crossings"]
    return found


def _crossing(run: Run, source: Model, target: Model) -> Figures:
    native = {skill: run.native(source, skill).updates for skill in run.section.skills}
    anchors = run.texts.anchors[:TEXTS]
    made = regressed(source, target, native, anchors, strength=LAMBDA)
    made |= carried(source, target, native, anchors, strength=LAMBDA)
    refusal = _refusal(source, target, next(iter(native.values())))
    found: Figures = {}
    for skill in native:
        scored, of_skill = Scored.of(run, target, skill), Figures()
        for way, by_skill in made.items():
            tried = {each: scaled(by_skill[skill], each) for each in STRENGTHS}
            held = {each: scored.held(on) for each, on in tried.items()}
            best = max(held, key=lambda each, of=held: of[each])
            of_skill[way] = {"strength": best, "retention": scored.test(tried[best])}
            print(target.facts.name, skill, way, of_skill[way], file=sys.stderr)
        found[skill] = {**of_skill, Reordered().name: {NOT_APPLICABLE: refusal}}
    return found


def _refusal(source: Model, target: Model, updates: Updates) -> str:
    """What is said of carrying these by the order of heads and neurons."""
    place = next(iter(updates))
    mine, theirs = (weight(each.engine, places(each.engine)[place]) for each in (source, target))
    try:
        Reordered().carry(updates[place], Crossing(mine, theirs))
    except NotApplicable as error:
        return str(error)
    raise AssertionError("the carrier is told no order")


if __name__ == "__main__":
    main()
