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

from actors.caching import CacheError, Read, cells_of, know, tokens_of
from actors.engine import Engine
from alignment.cache_map import CacheMap

OWN = "own"  # the input of a map beside the sites: what the target knows of its tokens, [tt, e]


def covering(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """For each target token the source token that covers its last character, int64 [tt].

    `source` [ts, 2] and `target` [tt, 2] are (start, end) characters of tokens of one text; 0 where
    a target token stands for no text. A last character beyond the source's has its last token.
    """
    ends = np.maximum.accumulate(source[:, 1])
    found = np.searchsorted(ends, target[:, 1], side="left").clip(max=len(ends) - 1)
    return np.where(target[:, 1] > target[:, 0], found, 0)


def own_tokens(source: np.ndarray, target: np.ndarray) -> int:
    """How many first tokens must be the target's own, one at least, by the spans of both.

    Those that stand for no text or are covered by the source's first token, which is no cell of a
    word but where the source's own attention pours.
    """
    carried = np.flatnonzero(covering(source, target))
    return max(1, int(carried[0])) if len(carried) else len(target)


def map_inputs(source: Read, target_spans: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    """What a map may read for each target token: the source's cells by site, and `own` [tt, e].

    `target_spans` [tt, 2] and `own` are of the target's tokens of the same text: `Known.states`.
    """
    rows = covering(source.spans, target_spans)
    return {**{site: held[rows] for site, held in source.cells.items()}, OWN: own}


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
