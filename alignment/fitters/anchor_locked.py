"""Procrustes that may not turn anchors round.

Shapes: ds source width, dt target width, k locked anchors.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignment.fitted import FitError, Fitter, Part, squared_error, through_means
from alignment.maps import Affine, Map
from alignment.spectrum import covariances

ROUNDS = 20


@dataclass(frozen=True)
class AnchorLocked(Fitter):
    """y - mean_y = scale * R (x - mean_x), R orthogonal, each locked anchor on its own side.

    R fits the rows as that of `procrustes` does (and is it where no lock stands against it), with
    b·Ra > 0 for every locked pair of centred rows (a, b). Where directions are nearly even, a few
    rows of noise decide the sign of some, and the solution without locks may be the mirror image of
    the wanted one.

    Solved in rounds: an SVD, then every anchor on the wrong side counts twice as much as before. Of
    all rounds the one with the fewest anchors on the wrong side is taken, and of these the one with
    the best fit: that need not be the best of all rotations. Locks may contradict each other;
    `facts` tells how many are left on the wrong side.

    Locked are the `locks` rows of the sample with the largest ‖a‖‖b‖, whose side is the least a
    matter of noise. The means of folds would be locks that need no sample, but they are the means
    of thousands of rows, nearly zero, and so on either side by chance.
    """

    needs_rows: ClassVar[bool] = True

    locks: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.locks < 1:
            raise FitError(f"{self.name} needs at least one lock; got {self.locks}")

    def learn(self, training: Part, *_chosen: float) -> Affine:
        moments, (a, b) = training.moments, self._locked(training)
        cov_x, cov_xy = covariances(moments)
        weights = torch.zeros(len(a), dtype=torch.float64)
        fewest, best, turn = len(a) + 1, 0.0, torch.empty(0)
        plain = 0.0  # what the best rotation without locks reaches of tr(R cov_xy)
        for _ in range(ROUNDS):
            u, values, vt = torch.linalg.svd(cov_xy + a.mT * weights @ b, full_matrices=False)
            tried = (u @ vt).mT
            plain = plain or float(values.sum())
            wrong, fit = _wrong(tried, a, b), float((tried * cov_xy.mT).sum())
            if (int(wrong.sum()), -fit) < (fewest, -best):
                fewest, best, turn = int(wrong.sum()), fit, tried
            if not wrong.any():
                break
            first = plain / (8 * len(a))  # small beside the rows, and large after some doublings
            weights = torch.where(wrong, 2 * weights + first, weights)
        # Where the locks leave no fit, least squares would shrink to nothing or turn back.
        reached = best if best > 0 else plain
        spread = float((turn @ cov_x * turn).sum())
        return through_means(turn * (reached / max(spread, torch.finfo().tiny)), moments)

    def judge(self, training: Part, held: Part) -> Tensor:
        error = squared_error(self.learn(training), held.moments)
        return torch.tensor(error, dtype=torch.float64)

    def facts(self, training: Part, learned: Map) -> dict[str, float]:
        assert isinstance(learned, Affine)
        a, b = self._locked(training)
        wrong = _wrong(learned.matrix, a, b)
        return {"locked": len(a), "on_the_wrong_side": int(wrong.sum())}

    def _locked(self, training: Part) -> tuple[Tensor, Tensor]:
        """Directions of the locked anchors, [k, ds] and [k, dt]."""
        moments, rows = training.moments, training.rows
        # What varies by its rounding only has no side.
        varies_x = covariances(moments)[0].diagonal() > 0
        varies_y = covariances(moments.swap())[0].diagonal() > 0
        a = (rows.x.double() - moments.mean_x) * varies_x
        b = (rows.y.double() - moments.mean_y) * varies_y
        lengths = a.norm(dim=1), b.norm(dim=1)
        both = lengths[0] * lengths[1]
        chosen = both.topk(min(self.locks, len(both))).indices
        chosen = chosen[both[chosen] > 0]
        return a[chosen] / lengths[0][chosen, None], b[chosen] / lengths[1][chosen, None]


def _wrong(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Which anchors a weight [dt, ds] carries to the wrong side, or to none [k]."""
    return (a @ weight.mT * b).sum(1) <= 0
