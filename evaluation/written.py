"""What a judge says of the texts that a target wrote.

Shapes: p prompts.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.cargos.steering import JudgedRow
from evaluation.judge import Judge
from evaluation.judged import judged_effect

Both = tuple[list[str], list[str]]  # what was written after each prompt, at plus and at minus


def judge_written(judge: Judge, written: Mapping[str, Both], *, draws: int, seed: int) -> JudgedRow:
    """How far native, carried and control (the names in `written`) move a judge's scores.

    Untouched, the target writes the same whatever the sign: its effect is none.
    """
    scores = {
        name: np.stack([judge.score(texts) for texts in both])[..., None]  # [2, p, 1]
        for name, both in written.items()
    }
    base = np.zeros_like(scores["native"])
    effect = judged_effect(base, **scores, draws=draws, seed=seed)
    return JudgedRow(
        judge=judge.name,
        error=judge.facts().error.rate,
        native=effect.native,
        carried=effect.carried,
        control=effect.control,
        retention=effect.retention,
    )
