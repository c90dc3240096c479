"""Adapters made sparse, and several made one.

What is dropped or merged are the numbers of the changes themselves [o, i], not of their factors;
the nearest change of the wanted rank is kept.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from peft.utils.merge_utils import prune, task_arithmetic, ties
from torch import Tensor

from actors.cargo.lora import Adapter
from actors.cargo.peft_files import AdapterError
from actors.derivation import generator
from alignment.updates import Update

Dropped = Literal["random", "magnitude"]
Merged = Literal["sum", "ties"]


def sparsified(adapter: Adapter, share: float, which: Dropped, seed: int = 0) -> Adapter:
    """Without this share of its numbers, the others divided by what is left of one (DARE,
    arXiv 2311.03099): drawn at random, or the smallest of each place.

    Raises:
        AdapterError: the share is none.
    """
    if not 0 <= share < 1:
        raise AdapterError(f"a share of {share:g} to drop: it must be from 0 to below 1")
    kept = 1 - share
    if share == 0:
        return adapter

    def changed(place: str, update: Update) -> Update:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(seed, place).initial_seed())
            matrix = prune(update.matrix, kept, which) / kept
        return Update.of(matrix, update.rank)

    updates = {place: changed(place, update) for place, update in adapter.updates.items()}
    return Adapter(updates, adapter.base)


def merged(
    adapters: Sequence[Adapter], weights: Sequence[float], how: Merged, kept: float = 0.2
) -> Adapter:
    """One adapter of several of one model, of the largest rank among them.

    A weighted sum (task arithmetic, arXiv 2212.04089), or TIES (arXiv 2306.01708): of each the
    share of numbers that is `kept`, and at each place those whose sign has the greater total.

    Raises:
        AdapterError: there are none, or not a weight for each.
    """
    if not adapters or len(adapters) != len(weights):
        raise AdapterError(f"{len(adapters)} adapters and {len(weights)} weights")
    rank = max(each.rank for each in adapters)
    places = dict.fromkeys(place for each in adapters for place in each.updates)
    return Adapter(
        {place: Update.of(_merged(adapters, weights, how, kept, place), rank) for place in places},
        adapters[0].base,
    )


def _merged(
    adapters: Sequence[Adapter], weights: Sequence[float], how: Merged, kept: float, place: str
) -> Tensor:
    there = [
        (each.updates[place].matrix, weight)
        for each, weight in zip(adapters, weights, strict=True)
        if place in each.updates
    ]
    matrices = [matrix for matrix, _ in there]
    by = torch.tensor([weight for _, weight in there])
    return task_arithmetic(matrices, by) if how == "sum" else ties(matrices, by, kept)
