"""How long the whole matrix of the fleet takes on this machine, and a fifth model on top of it.

A home of its own is made for it, so that nothing is there yet but checkpoints; given one that an
earlier call has left, it goes on, and time is counted together. The fifth joins latents that are
there. Asked for: four models, four cargos and twelve pairs in 60 minutes on 2 cores; a fifth model
for a third of that; tracking at most 5 %.

    python -m benchmarks.fleet HOME
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from actors.catalog import Derivation, ModelSpec
from benchmarks.record import kept, record
from evaluation.assertions import assertions
from evaluation.digest import digest
from evaluation.matrix import Matrix
from evaluation.predictors import predictors
from jobs.assemble import lineage
from jobs.config import RunFile, read_run_file
from jobs.names import ROOT
from jobs.progress import Reporter
from jobs.sweep import sweep

RUN_FILE = ROOT / "configs" / "fleet.yaml"
SPENT = "spent.json"  # seconds of all calls, by run
WHOLE = "in all"


def main() -> None:
    """Sweep four models and record, and then five."""
    home = Path(sys.argv[1]).absolute()
    four = read_run_file(RUN_FILE).model_copy(update={"home": home})
    fifth = ModelSpec(
        name="smollm2-permuted",
        dtype=four.models[0].dtype,
        derived=Derivation(base=four.models[0], recipe="permuted"),
    )
    assert four.soft_prompt is not None
    five = four.model_copy(
        update={
            "models": (*four.models, fifth),
            "name": f"{four.name}-five",
            "soft_prompt": four.soft_prompt.model_copy(update={"later": (fifth.name,)}),
        }
    )
    found: dict[str, dict[str, Any]] = {}
    for run in (four, five):
        found[run.name] = _swept(run)
        seconds, *more = (of["seconds"] for of in found.values())
        record(
            "fleet",
            {
                "asked": {"minutes": 60, "fifth_share": 1 / 3, "tracking_share": 0.05},
                "minutes": seconds[WHOLE] / 60,
                "fifth_share": more[0][WHOLE] / seconds[WHOLE] if more else None,
                "tracking_share": seconds["tracking"] / seconds[WHOLE],
                "runs": found,
            },
        )


def _swept(run: RunFile) -> dict[str, Any]:
    """What came of a run, and the seconds that it took, with those of calls that were stopped."""
    done = run.home / f"{run.name}.json"
    if done.exists():
        return json.loads(done.read_text())
    reporter, start = Reporter(), time.monotonic()
    try:
        matrix = sweep(run, reporter).matrix
    finally:
        whole = _add(run, time.monotonic() - start)
    spent = reporter.seconds | {WHOLE: whole}
    found = {
        "commit": lineage()["commit"],
        "seconds": spent,
        "cargos": _cargos(matrix),
        "routes": _routes(matrix),
        "foretold": _foretold(matrix),
        "asserted": _asserted(matrix),
    }
    done.write_text(json.dumps(found))
    return found


def _add(run: RunFile, seconds: float) -> float:
    file = run.home / SPENT
    every = json.loads(file.read_text()) if file.exists() else {}
    every[run.name] = every.get(run.name, 0.0) + seconds
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(every, indent=2))
    return every[run.name]


def _cargos(matrix: Matrix) -> dict[str, Any]:
    found = {}
    for (cargo, concept), cells in matrix.facets.items():
        of = digest(cargo, cells)
        found[f"{cargo}, {concept}"] = {
            "pairs": of.count,
            "with_a_real_native_effect": of.real,
            "median_retention": of.retention,
            "worst_control_median": of.worst_control,
            "each": {f"{c.source} -> {c.target}": kept(c.retention) for c in cells},
        }
    return found


def _foretold(matrix: Matrix) -> dict[str, Any]:
    """By cargo and by what was known: how it goes with retention, and how far off a line is."""
    return {
        cargo: {
            of.name: {
                "crossings": of.pairs,
                "spearman": kept(of.spearman),
                "off_by": of.error,
                "mean_off_by": of.naive,
            }
            for of in some
        }
        for cargo, some in predictors(matrix).items()
    }


def _asserted(matrix: Matrix) -> dict[str, Any]:
    """By cargo and by the band that others assert: how many crossings lie below, within, above."""
    return {
        cargo: {
            str(band): dict(Counter(of.verdict for of in some if of.band == band))
            for band in dict.fromkeys(of.band for of in some)
        }
        for cargo, some in assertions(matrix).items()
    }


def _routes(matrix: Matrix) -> list[dict[str, Any]]:
    return [
        {
            "cargo": of.cargo,
            "path": list(of.path),
            "direct": kept(of.direct),
            "routed": kept(of.routed),
            "gain": kept(of.gain),
            "recommended": of.recommended,
        }
        for of in matrix.routes
    ]


if __name__ == "__main__":
    main()
