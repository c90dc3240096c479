"""Whether a small network on top of the closed-form map of caches pays, both ways of the demo.

What the linear map leaves of the target's cells is fitted by one hidden layer (gelu) from the same
inputs, by Adam on the squared error, each number of a cell in units of what it matters to what the
target says next. Held-out texts choose the epoch; test texts are handed over with and without.

    python -m benchmarks.kv_residual
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actors.cached_text import map_inputs
from actors.cargo.kv_cache import with_own
from actors.hand_over import NATIVE, HandOver, Passage, after
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap
from benchmarks import caches
from benchmarks.caches import Model
from benchmarks.record import record
from jobs.passages import Passages

HIDDEN, EPOCHS, BATCH, RATE = 1024, 3, 512, 1e-3
LINEAR, BOTH = "linear", "linear and residual network"


def main() -> None:
    """Measure and record."""
    run, section, texts = caches.run_of_caches()
    settings = {"hidden": HIDDEN, "epochs": EPOCHS, "batch": BATCH, "learning_rate": RATE}
    crossings = {}
    for name, source, target in caches.directions(run):
        crossings[name] = _crossing(source, target, texts, section.cached)
        print(name, crossings[name], file=sys.stderr)
        record("kv_residual", {"settings": settings, "crossings": crossings})


def _crossing(source: Model, target: Model, texts: Passages, cached: int) -> dict[str, Any]:
    reduced, sums = caches.prepared(source, target, texts)
    by = fit_caches(sums.training, sums.held, reduced, target.widths).map
    del sums
    matters = caches.importance_to(target, texts, cached)
    weights = torch.cat([matters[site] for site in by.writes])
    weights = weights / weights.square().mean().sqrt()
    training, held = (_left(source, target, some, by) for some in (texts.fitted, texts.held))
    network, seen, seconds = _fitted(training, held, weights)
    nats = [_nats(source, target, passage, by, network) for passage in caches.judged(texts)]
    return {
        "texts": len(nats),
        "parameters": sum(of.numel() for of in network.parameters()),
        "parameters_of_the_map": sum(of.numel() for of in by.map.tensors().values()),
        "share_of_what_is_left_by_epoch": seen,
        "seconds": round(seconds),
        "retention": {name: caches.retention(nats, name) for name in (LINEAR, BOTH)},
        "gained": caches.gained(nats, BOTH, LINEAR),
    }


def _left(
    source: Model, target: Model, texts: Sequence[str], by: CacheMap
) -> tuple[Tensor, Tensor]:
    """Inputs of all rows [n, D], and what the linear map leaves of their cells [n, T]."""
    inputs, left = [], []
    for pair in caches.pairs(source, target, texts):
        x = by.reduced(pair.inputs)
        inputs.append(x.half())
        left.append((torch.cat(list(pair.outputs.values()), 1) - by.map.transform(x)).half())
    return torch.cat(inputs), torch.cat(left)


def _fitted(
    training: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], weights: Tensor
) -> tuple[nn.Module, list[float], float]:
    """The network of the best epoch, and the share of held-out squares that each epoch leaves."""
    started = time.monotonic()
    torch.manual_seed(0)
    x, y = training
    out = nn.Linear(HIDDEN, y.shape[1])
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), out)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    steps = EPOCHS * -(-len(x) // BATCH)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)

    @torch.no_grad()
    def left() -> float:
        rest = whole = 0.0
        for one, other in zip(held[0].split(BATCH), held[1].split(BATCH), strict=True):
            whole += float((other.float() * weights).square().sum())
            rest += float(((other - network(one.float())) * weights).square().sum())
        return rest / whole

    seen, best = [left()], {name: of.clone() for name, of in network.state_dict().items()}
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            error = (y[rows].float() - network(x[rows].float())) * weights
            error.square().mean().backward()
            optimizer.step()
            slower.step()
        seen.append(left())
        print(f"left {seen[-1]:.4f}", file=sys.stderr)
        if seen[-1] == min(seen):
            best = {name: of.clone() for name, of in network.state_dict().items()}
    network.load_state_dict(best)
    return network, seen, time.monotonic() - started


@torch.no_grad()
def _nats(
    source: Model, target: Model, passage: Passage, by: CacheMap, network: nn.Module
) -> dict[str, float]:
    met = caches.meet(source, target, passage)
    variants = {NATIVE: met.native, LINEAR: met.carried(by), BOTH: _with(met, by, network)}
    return after(target.engine, met, variants)


def _with(met: HandOver, by: CacheMap, network: nn.Module) -> Mapping[str, np.ndarray]:
    """What is carried, with what the network adds to it."""
    inputs = map_inputs(met.source, met.spans, met.known)
    x = by.reduced({name: torch.from_numpy(inputs[name]) for name in by.reads})
    points = by.map.transform(x) + network(x)
    parts = points.split(list(by.writes.values()), dim=1)
    cells = {site: of.numpy() for site, of in zip(by.writes, parts, strict=True)}
    return with_own(cells, met.own)


if __name__ == "__main__":
    main()
