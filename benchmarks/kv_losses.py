"""Where the loss of a hand-over comes from, both ways of the demo.

A part of the carried cells at a time is put right: the target's own cells take its place. What that
gives back, as a share of all that is lost, says how much of the loss is there. Shares of parts need
not add up to one: parts mend each other.

Beside it stands what attention makes of the carried cells, layer by layer: the cosine of its output
at the tokens that follow with its output over the target's own cache.

    python -m benchmarks.kv_losses
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from actors.caching import continuation_nll, fill, read
from actors.engine import Engine
from actors.hand_over import HandOver, meet
from actors.mending import PARTS, mended
from actors.reading import reading
from actors.site_names import Site
from benchmarks.caches import carried_both_ways, judged, run_of_caches
from benchmarks.record import record
from evaluation.retention import paired_bootstrap

Cells = Mapping[str, np.ndarray]


def main() -> None:
    """Measure and record."""
    run, _, texts = run_of_caches()
    test = judged(texts)
    crossings = {}
    for name, source, target, by in carried_both_ways(run):
        rows, cosines = [], []
        for passage in test:
            (mine,) = read(source, "source", [passage.cached])
            met = meet(target, "target", passage, mine)
            carried = met.carried(by)
            variants = [met.native, carried, *mended(met, carried).values()]
            (base,) = continuation_nll(target, met.fed, [met.own])
            rows.append([base, *continuation_nll(target, met.fed, variants)])
            cosines.append(_attention_cosines(target, met, carried))
        crossings[name] = {
            **_shares(np.array(rows)),
            "attention_output_cosine_by_layer": np.mean(cosines, axis=0).round(4).tolist(),
        }
        print(name, crossings[name], file=sys.stderr)
    record("kv_losses", {"texts": len(test), "crossings": crossings})


@torch.inference_mode()
def _attention_cosines(target: Engine, met: HandOver, carried: Cells) -> list[float]:
    """Of every layer, over the tokens that follow."""
    sites = [Site("attention", layer) for layer in range(len(target.blocks))]
    fed = torch.from_numpy(met.fed).expand(2, -1)
    with reading(target, sites) as found:
        target.states_after(fed, fill(target, [met.native, carried]))
    return [float(torch.cosine_similarity(*found[site].float(), dim=-1).mean()) for site in sites]


def _shares(rows: np.ndarray) -> dict[str, Any]:
    """Of nats [n, 3 + parts]: of the target with nothing cached, native, carried, and mended."""

    def share(column: int) -> dict[str, float]:
        return asdict(
            paired_bootstrap(rows, lambda m: (m[:, 2] - m[:, column]) / (m[:, 2] - m[:, 1]))
        )

    means = rows.mean(0)
    return {
        "lost_nats": float(means[2] - means[1]),
        "lost_share_of_native_gain": float((means[2] - means[1]) / (means[0] - means[1])),
        "given_back": {name: share(3 + at) for at, name in enumerate(PARTS)},
    }


if __name__ == "__main__":
    main()
