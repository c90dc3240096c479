"""Carried adapters made sparse, and those of all skills made one.

What the demo's run of adapters has registered is pulled. DARE drops shares of what an adapter
changes, at random or the smallest; task arithmetic and TIES make one adapter of all skills. Held
items choose shares and weights; test items judge. The run is a quick one (`adapters.Run`).

    python -m benchmarks.lora_merging [SKILL ...]
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from actors.cargo.lora import Adapter, read_adapter
from actors.cargo.lora_merging import Dropped, Merged, merged, sparsified
from actors.matrices import places
from benchmarks.adapters import Figures, Model, Run, Scored
from benchmarks.record import record
from evaluation.record import model_name
from evaluation.tracking import pull
from jobs.progress import Reporter
from jobs.sweep import sweep

SHARES = (0.8, 0.9, 0.95, 0.99)
WEIGHTS = (0.25, 0.5, 1.0)


def main() -> None:
    """Measure and record."""
    run, directions = Run.read(sys.argv[1:], quick=True), {}
    versions = sweep(run.file, Reporter()).tracked.versions
    for name, source, target in run.directions():
        carried = dict(_pulled(run, source, target, versions))
        scored = {skill: Scored.of(run, target, skill) for skill in carried}
        directions[name] = {
            "as carried": {skill: scored[skill].test(on.updates) for skill, on in carried.items()},
            "dropped": {skill: _dropped(scored[skill], on) for skill, on in carried.items()},
            "merged": {how: _merged(scored, carried, how) for how in get_args(Merged)},
        }
        record("lora_merging", {"shares": SHARES, "weights": WEIGHTS, "directions": directions})


def _pulled(
    run: Run, source: Model, target: Model, versions: Mapping[str, str]
) -> Iterator[tuple[str, Adapter]]:
    """The adapter of each skill, as it is registered."""
    for skill in run.section.skills:
        name = model_name(source.facts.name, target.facts.name, "lora", skill)
        with tempfile.TemporaryDirectory() as scratch:
            pulled = Path(scratch) / "pulled"
            pull(name, versions[name], uri=run.file.tracking_uri, to=pulled)
            directory = pulled / "artifacts" / "cargo"
            yield skill, read_adapter(directory, places(target.engine))


def _dropped(scored: Scored, adapter: Adapter) -> Figures:
    """Of what is left when shares are dropped."""
    found: Figures = {}
    for which in get_args(Dropped):
        left = {share: sparsified(adapter, share, which).updates for share in SHARES}
        held = {share: scored.held(on) for share, on in left.items()}
        best = max(held, key=lambda share, of=held: of[share])
        found[which] = {"held": held, "share": best, "test": scored.test(left[best])}
        print(scored.skill, which, found[which], file=sys.stderr)
    return found


def _merged(scored: Mapping[str, Scored], carried: Mapping[str, Adapter], how: Merged) -> Figures:
    """Of one adapter of all skills, in each."""
    made = {
        weight: merged([*carried.values()], [weight] * len(carried), how).updates
        for weight in WEIGHTS
    }
    held = {
        weight: {skill: of.held(on) for skill, of in scored.items()} for weight, on in made.items()
    }
    best = max(held, key=lambda weight: float(np.mean([*held[weight].values()])))
    test = {skill: of.test(made[best]) for skill, of in scored.items()}
    print(how, best, test, file=sys.stderr)
    return {"held": held, "weight": best, "test": test}


if __name__ == "__main__":
    main()
