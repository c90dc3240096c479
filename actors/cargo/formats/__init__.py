"""Files of steering vectors, one format a module: the name of the module is that of the format.

A layer N is where a vector is *added*: to what block N leaves in the residual stream, counted from
0. So count steering-vectors, repeng and llama.cpp (which takes none at block 0), and so
`residual.N` does here. llama.cpp's own generator calls what it learned at block N `direction.N+1`;
it is added to block N+1 by llama.cpp, and here too.
"""

import zipfile
from pathlib import Path

from actors.cargo.formats import gguf, isthmus, safetensors
from actors.cargo.formats.layout import Format
from actors.cargo.vectors import SteeringVectors, VectorError
from actors.site_names import SiteError

# What claims a file first reads it.
FORMATS: dict[str, Format] = {
    "gguf": gguf.FORMAT,
    "isthmus": isthmus.FORMAT,
    "safetensors": safetensors.FORMAT,
}
_PICKLE = b"\x80"


def recognise(path: Path) -> str:
    """The name of the format of a file, by its content.

    Raises:
        VectorError: it cannot be read, is a pickle, or of no known format.
    """
    try:
        for name, each in FORMATS.items():
            if each.claims(path):
                return name
        pickled = _is_pickle(path)
    except OSError as error:
        raise VectorError(f"{path}: cannot be read: {error.strerror}") from None
    if pickled:
        raise VectorError(
            f"{path}: a pickle (torch.save), which can run any code when it is read; write the "
            'tensors with safetensors.torch.save_file({"layer.12": vector}, "vector.safetensors")'
        )
    raise VectorError(f"{path}: not a file of steering vectors; formats: {', '.join(FORMATS)}")


def read_vectors(path: Path, layers: int, site: str | None = None) -> SteeringVectors:
    """The vectors in a file of any format.

    Args:
        layers: of the model that they are for; negative layers count from its end.
        site: the only one to read, or where a vector belongs whose file does not say.

    Raises:
        VectorError: one line with the file, what is wrong and what is allowed.
    """
    name = recognise(path)
    try:
        return FORMATS[name].read(path, layers, site)
    except (VectorError, SiteError) as error:
        raise VectorError(f"{path}: {error}") from None


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(1) == _PICKLE:
            return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())
