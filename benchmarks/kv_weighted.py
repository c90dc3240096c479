"""Whether maps of caches are better where rows weigh what attention pays to them, both ways.

The closed-form map of all layers is fitted to the same texts three times: each row counting alike,
and by the attention that its token receives in the target, as it is and squared (the error of a
mean of independent errors). Attention is the mean over layers, heads and the tokens that come
after; what goes to the target's own first tokens is left out.

    python -m benchmarks.kv_weighted
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMoments, Reduction
from benchmarks import caches
from benchmarks.caches import Model, Pair
from benchmarks.record import record
from jobs.passages import Passages

ALIKE = "alike"
POWERS = {ALIKE: 0.0, "by attention": 1.0, "by attention squared": 2.0}


def main() -> None:
    """Measure and record."""
    run, _, texts = caches.run_of_caches()
    crossings = {}
    for name, source, target in caches.directions(run):
        crossings[name] = _crossing(source, target, texts)
        print(name, crossings[name], file=sys.stderr)
        record("kv_weighted", {"crossings": crossings})


def _crossing(source: Model, target: Model, texts: Passages) -> dict[str, Any]:
    reduced = caches.reductions(source, target, texts.fitted[: caches.SAMPLED])
    training, held = (_sums(source, target, some, reduced) for some in (texts.fitted, texts.held))
    maps = {
        name: fit_caches(training[name], held[name], reduced, target.widths).map for name in POWERS
    }
    nats = [caches.nats_after(source, target, passage, maps) for passage in caches.judged(texts)]
    return {
        "texts": len(nats),
        "retention": {name: caches.retention(nats, name) for name in maps},
        "gained_over_alike": {
            name: caches.gained(nats, name, ALIKE) for name in maps if name != ALIKE
        },
    }


def _sums(
    source: Model, target: Model, texts: Sequence[str], reduced: Mapping[str, Reduction]
) -> dict[str, CacheMoments]:
    """By what rows weigh."""
    found: dict[str, CacheMoments] = {}
    both = zip(caches.pairs(source, target, texts), target.learn(texts), strict=True)
    weighed = ((pair, _received(target, read.ids)) for pair, (read, _) in both)
    for x, y, received in _blocks(weighed, reduced):
        for name, power in POWERS.items():
            part = CacheMoments.of(x, y, received**power)
            found[name] = found[name] + part if name in found else part
    return found


def _blocks(
    weighed: Iterable[tuple[Pair, Tensor]], reduced: Mapping[str, Reduction]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs [n, D], cells [n, T] and attention [n] of many texts at once."""
    block: list[tuple[Tensor, Tensor, Tensor]] = []

    def joined() -> tuple[Tensor, Tensor, Tensor]:
        x, y, received = (torch.cat(of) for of in zip(*block, strict=True))
        return x, y, received

    for pair, received in weighed:
        x = torch.cat([of(pair.inputs[name]) for name, of in reduced.items()], 1)
        y = torch.cat(list(pair.outputs.values()), 1)
        block.append((x, y, received[-len(x) :]))  # without the target's own first tokens
        if sum(len(of) for of, _, _ in block) >= caches.BLOCK_ROWS:
            yield joined()
            block.clear()
    if block:
        yield joined()


@torch.inference_mode()
def _received(target: Model, ids: np.ndarray) -> Tensor:
    """The attention that each token is paid by a later one, times the number of tokens [t]."""
    model = target.engine.model
    model.set_attn_implementation("eager")  # no other tells
    paid = model(torch.from_numpy(ids)[None], output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    mean = torch.stack([of[0].mean(0) for of in paid]).mean(0).tril(-1)
    later = torch.arange(len(ids) - 1, -1, -1).clamp_min(1)
    return len(ids) * mean.sum(0) / later


if __name__ == "__main__":
    main()
