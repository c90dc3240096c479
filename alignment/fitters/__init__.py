"""Fitters: frozen dataclasses of hyperparameters, one a file; the key is the file's name."""

from alignment.fitted import Fitter
from alignment.fitters.pad_truncate import PadTruncate
from alignment.fitters.procrustes import Procrustes
from alignment.fitters.ridge import Ridge

FITTERS: dict[str, type[Fitter]] = {
    "pad_truncate": PadTruncate,
    "procrustes": Procrustes,
    "ridge": Ridge,
}

__all__ = ["FITTERS"]
