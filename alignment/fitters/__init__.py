"""Fitters: frozen recipes with fit(moments: FoldedMoments) -> Fitted, one a file."""

from alignment.fitters.fitted import FitError, Fitted, r2_from_moments
from alignment.fitters.pad_truncate import PadTruncate
from alignment.fitters.procrustes import Procrustes
from alignment.fitters.ridge import Ridge

FITTERS: dict[str, type[PadTruncate] | type[Procrustes] | type[Ridge]] = {
    "pad_truncate": PadTruncate,
    "procrustes": Procrustes,
    "ridge": Ridge,
}

__all__ = ["FITTERS", "FitError", "Fitted", "PadTruncate", "Procrustes", "Ridge", "r2_from_moments"]
