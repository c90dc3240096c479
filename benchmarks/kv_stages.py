"""What width and depth of the reading are worth, both ways of the demo.

Closed-form maps of the same texts, that read more or less of the source: of each site fewer or more
main components; and of all layers those around the depth of the layer that is written.

    python -m benchmarks.kv_stages
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from actors.cached_text import OWN
from actors.site_names import Site
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap, Reduction
from alignment.layers import depth_pairing
from benchmarks import caches
from benchmarks.caches import COMPONENTS, Model, Sums
from benchmarks.record import record
from jobs.passages import Passages

WIDTHS = (16, 32, COMPONENTS)  # components of each site
AROUND = (0, 2, 5)  # layers above and below the one at the same depth


def main() -> None:
    """Measure and record."""
    run, _, texts = caches.run_of_caches()
    crossings = {}
    for name, source, target in caches.directions(run):
        crossings[name] = _crossing(source, target, texts)
        print(name, crossings[name], file=sys.stderr)
    record("kv_stages", {"components": COMPONENTS, "crossings": crossings})


def _crossing(source: Model, target: Model, texts: Passages) -> dict[str, Any]:
    reduced, sums = caches.prepared(source, target, texts)
    every = f"{COMPONENTS} components of every layer"
    maps = {
        **{
            f"{width} components of every layer": _fitted(sums, reduced, target.widths, width)
            for width in WIDTHS
        },
        **{f"{2 * around + 1} layers": _near(sums, reduced, target, around) for around in AROUND},
    }
    nats = [caches.nats_after(source, target, passage, maps) for passage in caches.judged(texts)]
    return {
        "texts": len(nats),
        "retention": {name: caches.retention(nats, name) for name in maps},
        "beyond_every_layer": {
            name: caches.gained(nats, name, every) for name in maps if name != every
        },
    }


def _fitted(
    sums: Sums, reduced: Mapping[str, Reduction], writes: Mapping[str, int], width: int
) -> CacheMap:
    """Of the first components of each input; all of what the target knows."""
    ends = np.cumsum([0, *(of.width for of in reduced.values())])
    which, some = [], {}
    for at, (name, of) in zip(ends, reduced.items(), strict=False):
        count = of.width if name == OWN or of.basis is None else min(width, of.width)
        which.append(torch.arange(at, at + count))
        basis = None if of.basis is None else of.basis[:count]
        some[name] = Reduction(of.mean, of.scale, basis)
    training, held = (of.of_inputs(torch.cat(which)) for of in (sums.training, sums.held))
    return fit_caches(training, held, some, writes).map


def _near(sums: Sums, reduced: Mapping[str, Reduction], target: Model, around: int) -> CacheMap:
    """Each layer of the target from the source's layers around the same depth, by a map each."""
    layers = 1 + max(Site.parse(name).layer for name in reduced if name != OWN)
    ends = np.cumsum([0, *(of.width for of in reduced.values())])
    spans = {
        name: torch.arange(at, at + of.width)
        for at, (name, of) in zip(ends, reduced.items(), strict=False)
    }
    outputs = np.cumsum([0, *target.widths.values()])
    near = {}
    for start, (site, width) in zip(outputs, target.widths.items(), strict=False):
        layer = Site.parse(site).layer
        at = depth_pairing(layers, len(target.engine.blocks))[layer]
        names = [
            name for name in reduced if name == OWN or abs(Site.parse(name).layer - at) <= around
        ]
        which = torch.cat([spans[name] for name in names])
        rows = slice(start, start + width)
        training, held = (of.of_inputs(which).of_outputs(rows) for of in (sums.training, sums.held))
        some = {name: reduced[name] for name in names}
        near[site] = fit_caches(training, held, some, {site: width}).map
    first = next(iter(near.values()))
    return CacheMap(first.reductions, first.map, {}, near)


if __name__ == "__main__":
    main()
