"""Whether a target goes on from a cache that it was handed as it would from its own.

It goes on natively several times, by chance. How well it foresees each of these after the cache in
question, after its own and after nothing but its own first tokens gives a retention of this cache
alone: in expectation one minus a ratio of KL divergences.

Shapes: p cached tokens, n continuations, f tokens of each, d width of a site.
"""

from dataclasses import dataclass

import numpy as np
import torch

from actors.caching import CacheError, CellsBySite, Read, continuation_nll, fill
from actors.engine import Engine

CONTINUATIONS, TOKENS = 16, 24


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
        fed = [np.concatenate((self.native.ids[last:], each)) for each in self.said]
        return np.array([continuation_nll(engine, each, [some])[0] for each in fed])


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
    cache = fill(engine, [native.first(last)] * CONTINUATIONS)
    draw = torch.Generator().manual_seed(seed)
    fed = ids[last:].expand(CONTINUATIONS, 1)
    said: list[torch.Tensor] = []
    for _ in range(TOKENS):
        states = engine.states_after(fed, cache)[:, -1]
        chances = engine.logits(states).softmax(-1).cpu()
        said.append(torch.multinomial(chances, 1, generator=draw))
        fed = said[-1].to(engine.device)
    return Trial(native, torch.cat(said, dim=1).numpy())
