"""`isthmus remember`: what a model caches of a text, as a memory package."""

from pathlib import Path

from actors.caching import CacheError
from actors.cargo.memory_package import MemoryPackage
from actors.cargo.memory_record import PackageError
from actors.fleet import find, spec
from actors.host import ModelHost
from actors.weights import default_cache
from jobs.progress import Reporter


def remember(model: str, file: Path, out: Path, reporter: Reporter) -> MemoryPackage:
    """Read a text file with a model that is loaded here, and write the package.

    Raises:
        ModelError: the model is not there or broken.
        PackageError: the file cannot be read, is empty or longer than the model's context, or the
            directory is there already.
    """
    if out.exists():
        raise PackageError(f"{out} is already there: give another directory")
    text = _text(file)
    wanted = spec(find(model))
    with reporter.stage(f"loading {wanted.name}"):
        host = ModelHost(wanted, default_cache())
    with reporter.stage("reading"):
        try:
            (read,) = host.read([text])
        except CacheError as error:
            raise PackageError(f"{file}: {error}") from None
    package = MemoryPackage(wanted.name, text, read)
    package.save(out)
    return package


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PackageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PackageError(f"{file} is no UTF-8 text: byte {error.start} is not") from None
    if not text.strip():
        raise PackageError(f"{file} is empty: there is nothing to remember")
    return text
