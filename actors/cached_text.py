"""One text as a model's cache holds it, beside the tokens of another model.

Shapes: t tokens of a text; ts and tt of them in source and target; d width of a site, e width of
what the target itself knows of a token.
"""

from dataclasses import dataclass

import numpy as np

OWN = "own"  # the input of a map beside the sites: what the target knows of its tokens, [tt, e]


@dataclass(frozen=True, eq=False)
class Read:
    """One text as a model holds it: ids and (start, end) characters of its tokens, and the cells.

    Tokens that stand for no text have a span of (0, 0).
    """

    model: str
    ids: np.ndarray  # int64 [t]
    spans: np.ndarray  # int64 [t, 2]
    cells: dict[str, np.ndarray]

    def first(self, count: int) -> dict[str, np.ndarray]:
        """The cells of the first tokens."""
        return {site: held[:count] for site, held in self.cells.items()}


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
