"""Fitters: frozen dataclasses of hyperparameters, one a file; the key is the file's name."""

from alignment.fitted import Fitter
from alignment.fitters.anchor_locked import AnchorLocked
from alignment.fitters.architecture_aware import ArchitectureAware
from alignment.fitters.average_expert import AverageExpert
from alignment.fitters.bottleneck import Bottleneck
from alignment.fitters.dominant_expert import DominantExpert
from alignment.fitters.identity import Identity
from alignment.fitters.mlp import Mlp
from alignment.fitters.multi_scale import MultiScale
from alignment.fitters.orthogonal import Orthogonal
from alignment.fitters.pad_truncate import PadTruncate
from alignment.fitters.pca import Pca
from alignment.fitters.procrustes import Procrustes
from alignment.fitters.reduced_rank import ReducedRank
from alignment.fitters.relative import Relative
from alignment.fitters.residual import Residual
from alignment.fitters.ridge import Ridge
from alignment.fitters.routed import Routed

FITTERS: dict[str, type[Fitter]] = {
    "anchor_locked": AnchorLocked,
    "architecture_aware": ArchitectureAware,
    "average_expert": AverageExpert,
    "bottleneck": Bottleneck,
    "dominant_expert": DominantExpert,
    "identity": Identity,
    "mlp": Mlp,
    "multi_scale": MultiScale,
    "orthogonal": Orthogonal,
    "pad_truncate": PadTruncate,
    "pca": Pca,
    "procrustes": Procrustes,
    "reduced_rank": ReducedRank,
    "relative": Relative,
    "residual": Residual,
    "ridge": Ridge,
    "routed": Routed,
}

__all__ = ["FITTERS"]
