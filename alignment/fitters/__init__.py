"""Fitters: frozen dataclasses of hyperparameters, one a file; the key is the file's name."""

from alignment.fitted import Fitter
from alignment.fitters.bottleneck import Bottleneck
from alignment.fitters.identity import Identity
from alignment.fitters.multi_scale import MultiScale
from alignment.fitters.orthogonal import Orthogonal
from alignment.fitters.pad_truncate import PadTruncate
from alignment.fitters.pca import Pca
from alignment.fitters.procrustes import Procrustes
from alignment.fitters.reduced_rank import ReducedRank
from alignment.fitters.residual import Residual
from alignment.fitters.ridge import Ridge

FITTERS: dict[str, type[Fitter]] = {
    "bottleneck": Bottleneck,
    "identity": Identity,
    "multi_scale": MultiScale,
    "orthogonal": Orthogonal,
    "pad_truncate": PadTruncate,
    "pca": Pca,
    "procrustes": Procrustes,
    "reduced_rank": ReducedRank,
    "residual": Residual,
    "ridge": Ridge,
}

__all__ = ["FITTERS"]
