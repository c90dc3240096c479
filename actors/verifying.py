"""Whether a target goes on from a cache that it was handed as it would from its own.

It goes on natively several times, by chance. How well it foresees each of these after the cache in
question, after its own and after nothing but its own first tokens gives a retention of this cache
alone: in expectation one minus a ratio of KL divergences.

Shapes: p cached tokens, n continuations, f tokens of each, d width of a site.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.cached_text import Read
from actors.caching import CacheError, CellsBySite, fill
from actors.engine import Engine

CONTINUATIONS, TOKENS = 16, 24
TOGETHER = 4096  # cached tokens of all continuations that are gone on from at once


@dataclass(frozen=True, eq=False)
class Trial:
    """What a target says after a text: continuations, token ids int64 [n, f]."""

    native: Read
    said: np.ndarray

    def nats(self, engine: Engine, cells: CellsBySite) -> np.ndarray:
        """Nats per token of each continuation after these cells, of which the last is not used:
        the model reads that token itself. float64 [n].

        Raises:
            CacheError: cells that the model cannot go on from.
        """
        last = len(self.native.ids) - 1
        some = {site: np.asarray(of[:last]) for site, of in cells.items()}
        together = max(1, TOGETHER // last)
        found: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(self.said), together):
                said = torch.from_numpy(self.said[start : start + together]).to(engine.device)
                cache = fill(engine, [some] * len(said))
                first = torch.full((len(said), 1), int(self.native.ids[-1]), device=engine.device)
                states = engine.states_after(torch.cat((first, said[:, :-1]), 1), cache)
                own = engine.log_chances(states.flatten(0, 1), said.flatten())
                found += (-own.double().view(said.shape).mean(1)).tolist()
        return np.array(found)


@torch.inference_mode()
def begin(engine: Engine, native: Read, seed: int = 0) -> Trial:
    """Let the target go on from its own cache of a text, several times.

    Raises:
        CacheError: the text has one token only, or fills the context.
    """
    ids = torch.from_numpy(native.ids).to(engine.device)
    if not 1 < len(ids) <= engine.context - TOKENS:
        raise CacheError(
            f"a text of {len(ids):,} tokens leaves no room to go on from: 2 to "
            f"{engine.context - TOKENS:,} tokens do in a context of {engine.context:,}"
        )
    last = len(ids) - 1
    draw = torch.Generator().manual_seed(seed)
    together = min(CONTINUATIONS, max(1, TOGETHER // last))
    said = [
        _go_on(engine, native.first(last), ids[last:].expand(count, 1), draw)
        for start in range(0, CONTINUATIONS, together)
        for count in [min(together, CONTINUATIONS - start)]
    ]
    return Trial(native, torch.cat(said).numpy())


def _go_on(engine: Engine, cells: CellsBySite, fed: Tensor, draw: torch.Generator) -> Tensor:
    """Token ids [n, f], drawn one by one after the cells and one token more [n, 1]."""
    cache = fill(engine, [cells] * len(fed))
    said: list[Tensor] = []
    for _ in range(TOKENS):
        states = engine.states_after(fed, cache)[:, -1]
        said.append(torch.multinomial(engine.logits(states).softmax(-1).cpu(), 1, generator=draw))
        fed = said[-1].to(engine.device)
    return torch.cat(said, dim=1)
