"""What a model holds at the rows of an anchor batch: the points that maps are fitted on.

Shapes: n rows, d width of the residual stream, b texts, t tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from actors.anchors import WORDS_PER_TEXT, AnchorBatch, rows
from actors.encoding import encode, of_like_length
from actors.engine import Engine
from actors.exchange import Activations
from actors.prompting import prompting
from actors.site_names import Site
from actors.sites import reading, site_width

TOGETHER = 16  # texts of a pass


class NotFinite(ValueError):
    """A model computed NaN or Inf: one line with the texts and the site."""


@torch.inference_mode()
def activations(
    engine: Engine, fingerprint: str, batch: AnchorBatch, sites: Sequence[str]
) -> Activations:
    """Read the sites at every row of the batch, in one pass that ends at the highest of them.

    Raises:
        NotFinite: a site holds NaN or Inf at a row.
    """
    encoded = encode(engine, batch.texts)
    row_ids, texts, tokens = rows(batch, encoded.spans)
    at = (torch.from_numpy(texts), torch.from_numpy(tokens))
    points = _read(engine, f"batch {batch.id}", encoded.ids, sites, lambda stream: stream[at])
    return Activations(fingerprint, batch.id, row_ids, points)


@torch.inference_mode()
def cache(engine: Engine, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keys (rotated) and values of every layer, each [b, k, t, w]; padded on the right."""
    kept = engine.cache(encode(engine, texts).ids)
    return [(keys.float().cpu().numpy(), values.float().cpu().numpy()) for keys, values in kept]


@torch.inference_mode()
def forward(engine: Engine, batch: AnchorBatch) -> int:
    """The bare forward pass over the batch, without hooks and without head: the tokens it read."""
    encoded = encode(engine, batch.texts)
    engine.states(encoded.ids)
    return sum(encoded.lengths)


@torch.inference_mode()
def embeddings(engine: Engine, ids: np.ndarray) -> np.ndarray:
    """What the model reads of each token [k], float32 [k, d]."""
    rows = engine.embeddings(torch.from_numpy(ids)[None].to(engine.device))
    return rows[0].float().cpu().numpy()


@torch.inference_mode()
def stream(engine: Engine, texts: Sequence[str], site: str) -> list[np.ndarray]:
    """What a site holds at every token of each text, float32 [t, d].

    Raises:
        TextError: a text of which the tokenizer makes no token.
        NotFinite: the site holds NaN or Inf.
    """
    found: dict[int, np.ndarray] = {}
    for numbers in of_like_length(texts, TOGETHER * engine.at_once):
        some = [texts[number] for number in numbers]
        encoded = encode(engine, some)
        name = f"the texts from {some[0]!r} on"
        rows = _read(engine, name, encoded.ids, [site], lambda of: of.flatten(0, 1))[site]
        by_text = rows.reshape(*encoded.ids.shape, -1)
        parts = [of[:length] for of, length in zip(by_text, encoded.lengths, strict=True)]
        found |= dict(zip(numbers, parts, strict=True))
    return [found[number] for number in range(len(texts))]


@torch.inference_mode()
def prompt_stream(engine: Engine, rows: np.ndarray, site: str) -> np.ndarray:
    """What a site holds at every row of a soft prompt [k, d] that is read alone, float32 [k, d]."""
    nothing = torch.zeros((1, 0), dtype=torch.long, device=engine.device)
    with prompting(engine, torch.from_numpy(rows).to(engine.device)):
        return _read(engine, "the prompt", nothing, [site], lambda stream: stream[0])[site]


@torch.inference_mode()
def pooled(
    engine: Engine,
    texts: Sequence[str],
    sites: Sequence[str],
    first_words: Sequence[int],
    batch_texts: int = TOGETHER,
) -> dict[str, np.ndarray]:
    """Mean over each text's rows, by site, float32 [len(texts), d].

    `first_words` are for each text the number of the word from which on its rows count. A text
    without such rows (of one word) stands for itself with its last token.
    """
    widths = {site: site_width(engine, Site.parse(site)) for site in sites}
    pools = {site: np.empty((len(texts), of), dtype=np.float32) for site, of in widths.items()}
    for numbers in of_like_length(texts, batch_texts):
        some = [texts[each] for each in numbers], [first_words[each] for each in numbers]
        for site, points in _pooled_batch(engine, *some, sites).items():
            pools[site][numbers] = points
    return pools


def _pooled_batch(
    engine: Engine, texts: Sequence[str], first_words: Sequence[int], sites: Sequence[str]
) -> dict[str, np.ndarray]:
    encoded = encode(engine, texts)
    batch = AnchorBatch(shard=0, index=0, texts=tuple(texts))
    row_ids, text_index, token_index = rows(batch, encoded.spans)
    counts = row_ids % WORDS_PER_TEXT >= np.asarray(first_words)[text_index]
    weights = torch.zeros(encoded.ids.shape, device=engine.device)
    weights[torch.from_numpy(text_index[counts]), torch.from_numpy(token_index[counts])] = 1.0
    for row in (weights.sum(1) == 0).nonzero():
        weights[row, encoded.lengths[int(row)] - 1] = 1.0
    weights /= weights.sum(1, keepdim=True)
    return _read(
        engine,
        f"the texts from {texts[0]!r} on",
        encoded.ids,
        sites,
        lambda stream: torch.einsum("bt,btd->bd", weights, stream.float()),
    )


def _read(
    engine: Engine, texts: str, ids: Tensor, sites: Sequence[str], keep: Callable[[Tensor], Tensor]
) -> dict[str, np.ndarray]:
    """What `keep` makes of each site; `texts` says in an error what was read."""
    wanted = {name: Site.parse(name) for name in sites}
    with reading(
        engine, list(wanted.values()), lambda stream: keep(stream).float(), stop=True
    ) as found:
        engine.states(ids)
    points = {name: found[site].cpu().numpy() for name, site in wanted.items()}
    for name, of in points.items():
        bad = int((~np.isfinite(of).all(axis=1)).sum())
        if bad:
            raise NotFinite(
                f"{texts}, site {name}: {bad} of {len(of)} rows are not finite (NaN or "
                f"Inf, computed in {str(engine.model.dtype).removeprefix('torch.')})"
            )
    return points
