"""KV caches: what one model holds of a text, as another model would hold it.

Shapes: ts and tt tokens of one text in source and target, d width of a site, e width of what the
target itself knows of a token.

Each target token takes the cell of the source token that covers its last character. What a token
itself is the target knows best: its own embedding, or what its first layers make of the text, goes
into the map beside the source's cells. The first tokens are the target's own: attention pours what
it does not need into the first token of a text (StreamingLLM, arXiv 2309.17453), and no other
model's first token will do.
"""

from collections.abc import Mapping

import numpy as np
import torch

from actors.cached_text import Read, map_inputs, own_tokens
from actors.caching import CacheError, cells_of, know, tokens_of
from actors.engine import Engine
from alignment.cache_map import CacheMap


def carry(
    source: Read, target_spans: np.ndarray, own: np.ndarray, by: CacheMap
) -> dict[str, np.ndarray]:
    """The cells of the target's tokens by site, float32 [tt, d], from the source's cache.

    The first `own_tokens` of them mean nothing: put the target's own there (`with_own`).

    Raises:
        CacheError: the cache has other sites or widths than the map reads.
    """
    inputs = map_inputs(source, target_spans, own)
    for site, width in by.reads.items():
        if site not in inputs:
            raise CacheError(f"the map reads {site}, which the cache does not have")
        if inputs[site].shape[1] != width:
            raise CacheError(
                f"{site}: cells of width {inputs[site].shape[1]}, and the map reads {width}"
            )
    points = by.transform({site: torch.from_numpy(inputs[site]) for site in by.reads})
    return {site: cells.numpy() for site, cells in points.items()}


def with_own(
    carried: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Carried cells with the target's own [n, d] in the place of the first n."""
    return {
        site: np.concatenate((own[site], cells[len(own[site]) :]))
        for site, cells in carried.items()
    }


@torch.inference_mode()
def receive(
    engine: Engine, fingerprint: str, text: str, source: Read, by: CacheMap, layers: int = 0
) -> Read:
    """What the target caches of a text, from what the source has cached of it.

    The target's own are its first tokens, and its first `layers`, which it computes; `by` must have
    been fitted with as many (`caching.know`).

    Raises:
        CacheError: the map reads other sites or widths than there are, or the text is longer than
            the target's context.
    """
    ids, spans = tokens_of(engine, text)
    known = know(engine, ids, layers)
    first_ids = torch.from_numpy(ids[: own_tokens(source.spans, spans)]).to(engine.device)
    first = cells_of(engine, first_ids[None])
    own = {site: cells[0].cpu().numpy() for site, cells in first.items()}
    cells = with_own(carry(source, spans, known.states, by), own) | known.cells
    return Read(fingerprint, ids, spans, cells)
