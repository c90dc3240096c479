"""What of a skill survives between SmolLM2 and models that were made of it, in closed form.

Twins compute the same function in another shape: heads and neurons in another order, which Git
Re-Basin finds, or another basis of the residual stream, which ridge and Procrustes find. The sparse
one has four experts with noise, and is a model of its own. Each model's native adapter is trained
in it, with the same recipe.

    python -m benchmarks.lora_twins [TWIN ...]
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.anchors import batches
from actors.catalog import Derivation, ModelSpec
from actors.fleet import find, spec
from actors.matrices import places, weight
from alignment.carriers.reordered import Reordered
from alignment.coverage import coverage
from alignment.crossing import Crossing
from alignment.permutation import Attention, match_heads, match_neurons, rows_of
from alignment.similarity import Similarity, compare
from alignment.updates import Update
from benchmarks.adapter_carriers import SHUFFLED, carried, paired, stream_reader
from benchmarks.adapters import Figures, Model, Run, Scored, live, named_pairs
from benchmarks.record import record

BASE = "smollm2-135m-instruct"
SKILL = "social_media"
TEXTS = 72  # of the anchors
LAMBDA = 1e-4  # what twins hold is the same but for its basis, with little noise to be damped
RECIPES: dict[str, dict[str, Any]] = {
    "permuted": {"recipe": "permuted"},
    "rotated": {"recipe": "rotated"},
    "sparse": {"recipe": "sparse", "options": {"noise": 0.1}},
}
REORDERED = "reordered"
NEURONS = ("gate", "up", "down")
# Ways through maps. Procrustes takes as long as all else: it is asked about a basis that is turned,
# not about neurons in another order, which Git Re-Basin finds.
FITTED = {"permuted": ("ridge", SHUFFLED), "rotated": ("ridge", "procrustes", SHUFFLED)}


def main() -> None:
    """Measure and record, a file for each twin."""
    run, base = Run.read(), live(spec(find(BASE)))
    asked = {"exact twins": ">= 0.98", "sparse": ">= 0.80", "controls": "<= 0.1"}
    scored = {base.facts.name: Scored.of(run, base, SKILL)}
    for name in sys.argv[1:] or RECIPES:
        made = twin(name)
        alike = compared(base, made, run.texts.anchors)
        scored[name] = Scored.of(run, made, SKILL)
        crossings: Figures = {}
        for direction, source, target in named_pairs([base, made]):
            there = alike if source is base else alike.swapped
            theirs, own = (scored[of.facts.name] for of in (source, target))
            crossings[direction] = {
                "coverage": asdict(coverage(there)),
                **_crossing(run, theirs, own, FITTED.get(name, ())),
            }
            print(direction, crossings[direction], file=sys.stderr)
        record(
            f"lora_twins.{name}",
            {"asked": asked, "skill": SKILL, "lambda": LAMBDA, "crossings": crossings},
        )


def _crossing(run: Run, theirs: Scored, scored: Scored, fitted: Sequence[str]) -> Figures:
    source, target = theirs.target, scored.target
    native = run.native(source, SKILL).updates
    reordered, same = _reordered(source, target, native)
    ways: dict[str, Mapping[str, Update]] = {REORDERED: reordered}
    if fitted:
        anchors = run.texts.anchors[:TEXTS]
        made = carried(source, target, {SKILL: native}, anchors, fitted, strength=LAMBDA)
        ways |= {way: of[SKILL] for way, of in made.items()}
    # Of a twin the source's own gain is what a crossing without loss keeps whole: the two models
    # are taught in different bases, and one may learn more.
    own = replace(scored, native=scored.base + theirs.native - theirs.base)
    done = {way: scored.done(on) for way, on in ways.items()}
    return {
        "matrices_in_the_order_found": same,
        "retention": {way: scored.share(of) for way, of in done.items()},
        "of_the_source's_gain": {way: own.share(of) for way, of in done.items()},
    }


def twin(name: str) -> Model:
    """A model that was made of the base."""
    derived = Derivation(base=spec(find(BASE)), **RECIPES[name])
    return live(ModelSpec(name=name, derived=derived))


def compared(one: Model, other: Model, anchors: Sequence[str]) -> Similarity:
    """How alike every layer of one is to every layer of another, over the first anchors."""
    (shard,) = batches(anchors[:TEXTS], shard_texts=TEXTS, batch_texts=8)
    both = paired(shard, [stream_reader(model) for model in (one, other)])
    return compare(*([*of.values()] for of in both))


def _reordered(
    source: Model, target: Model, native: Mapping[str, Update]
) -> tuple[dict[str, Update], float]:
    """What the source's adapter is in the target's order of heads and neurons; and the share of the
    target's matrices that are the source's in that order, to the bit. Every expert takes what the
    one MLP has added, and one MLP the mean of what all experts have."""
    found, same = {}, []
    for layer in range(len(target.engine.blocks)):
        (mine, my_parts), (theirs, their_parts) = (_weights(of, layer) for of in (source, target))
        orders = _attention_orders(source.engine.head_width, mine, theirs)
        for role, order in orders.items():
            pair = Crossing(mine[role], theirs[role], order=order)
            same.append(_is_in_order(pair))
            found[f"{role}.{layer}"] = Reordered().carry(native[f"{role}.{layer}"], pair)
        for there, other in their_parts.items():
            carried_from: dict[str, list[Update]] = defaultdict(list)
            for here, one in my_parts.items():
                for role, order in _neuron_orders(one, other).items():
                    pair = Crossing(one[role], other[role], order=order)
                    same.append(_is_in_order(pair))
                    part = Reordered().carry(native[f"{role}{here}"], pair)
                    carried_from[role].append(part.scaled(1 / len(my_parts)))
            for role, parts in carried_from.items():
                rank = parts[0].rank
                found[f"{role}{there}"] = Update.total(parts).rounded(rank)
    return found, float(np.mean(same))


def _is_in_order(pair: Crossing) -> bool:
    assert pair.order is not None, "it was looked for"
    rows, columns = pair.order
    return pair.source[rows][:, columns].equal(pair.target)


def _weights(model: Model, layer: int) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The matrices of a layer's attention by role; and of its MLP, or of each expert, by the end of
    the names of its places."""
    attention: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for place, at in places(model.engine).items():
        role, block, *_ = place.split(".")
        if int(block) == layer:
            part = parts[place.removeprefix(role)] if role in NEURONS else attention
            part[role] = weight(model.engine, at)
    return attention, parts


def _attention_orders(
    width: int, one: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each role the row and the column of the source for each of the target."""
    roles = ("queries", "keys", "values", "out")
    heads = match_heads(
        *(Attention(*(of[role] for role in roles), head_width=width) for of in (one, other))
    )
    queries, groups = rows_of(heads.queries, width), rows_of(heads.groups, width)
    stream = torch.arange(one["queries"].shape[1])
    orders = (queries, stream), (groups, stream), (groups, stream), (stream, queries)
    return dict(zip(roles, orders, strict=True))


def _neuron_orders(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    mine, theirs = ([of["gate"], of["up"]] for of in (one, other))
    neurons = match_neurons(mine, theirs, (one["down"], other["down"]))
    stream = torch.arange(len(one["down"]))
    return {"gate": (neurons, stream), "up": (neurons, stream), "down": (stream, neurons)}


if __name__ == "__main__":
    main()
