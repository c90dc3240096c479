"""Two models at the same batches, folded: what tests of the folder start from.

Shapes: n rows that both models have, ds and dt their widths.
"""

import numpy as np
import torch

from actors.exchange import Activations
from actors.folder import FitOrder, Folder, Keep, SitePair
from alignment.fitters.ridge import Ridge
from cluster.storage import DirectoryStore, address

WIDE, NARROW = 7, 5
PAIR = SitePair("wide", "residual.1", "narrow", "residual.0")
SHARD = address("a shard")
RIDGE = Ridge()
Both = tuple[Activations, Activations]


def batch(number: int, seed: int = 0, rows: int = 60) -> Both:
    """Two models at the same batch: the narrow one is a linear image of the wide one, and noise.

    Each lacks some of the rows that the other has, as with tokenizers that do not agree.
    """
    rng = np.random.default_rng([seed, number])
    x = rng.standard_normal((rows, WIDE)) * np.linspace(0.5, 3, WIDE) + 2
    image = np.random.default_rng(seed).standard_normal((WIDE, NARROW))
    y = x @ image + 0.3 * rng.standard_normal((rows, NARROW)) - 1
    ids = np.sort(rng.choice(10 * rows, rows, replace=False)).astype(np.int64)
    models = []
    for model, site, points in (("wide", "residual.1", x), ("narrow", "residual.0", y)):
        has = rng.random(rows) < 0.9
        found = {site: points[has].astype(np.float32)}
        models.append(Activations(model, f"0/{number}", ids[has], found))
    return models[0], models[1]


def aligned(both: Both) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the rows that both models have, found one by one."""
    at = [{int(row): place for place, row in enumerate(each.rows)} for each in both]
    rows = sorted(set(at[0]) & set(at[1]))
    x = both[0].points["residual.1"][[at[0][row] for row in rows]]
    y = both[1].points["residual.0"][[at[1][row] for row in rows]]
    return torch.from_numpy(x), torch.from_numpy(y)


def fold_all(folder: Folder, batches: list[Both], to: str = SHARD, start: int = 0) -> None:
    for index, both in enumerate(batches[start:], start=start):
        folder.fold(Keep(index, index == len(batches) - 1, ((PAIR, to),)), *both)


def fold_shards(store: DirectoryStore) -> tuple[str, ...]:
    """Six shards of two batches each."""
    places = tuple(address("shard", number) for number in range(6))
    folder = Folder(store)
    for number, place in enumerate(places):
        fold_all(folder, [batch(2 * number), batch(2 * number + 1)], place)
    return places


def order(shards: tuple[str, ...], reverse: bool, shuffle: int | None = None) -> FitOrder:
    return FitOrder(shards, 3, reverse, shuffle, ((RIDGE, address("map", reverse, shuffle)),))
