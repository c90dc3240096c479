"""The fleet: models that are known by their published configurations, without their weights.

Each YAML file beside this one holds a list of entries (see `actors.catalog.Entry`).
"""

import importlib.util
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.catalog import ClosedWeights, Entry, ModelError, ModelSpec, closed_line
from actors.checkpoints import read_json
from cluster.yaml_file import read_yaml

_FOLDER = Path(__file__).parent


@cache
def fleet() -> dict[str, Entry]:
    """Every entry by its name, in the order of the files; closed models last."""
    entries: dict[str, Entry] = {}
    for path in sorted(_FOLDER.glob("*.yaml")):
        for entry in _entries(path):
            assert entry.name not in entries, f"{path.name}: {entry.name} is there twice"
            entries[entry.name] = entry
    return dict(sorted(entries.items(), key=lambda item: item[1].weights == "closed"))


def find(model: str) -> Entry:
    """The entry of a model: by catalog name, alias or hub id, from a directory or a YAML file.

    A hub id that is not in the catalog has its config.json fetched.

    Raises:
        ModelError: there is no such model (the line names the nearest), or it cannot be read.
    """
    if (entry := _known().get(model.lower())) is not None:
        return entry
    path = Path(model).expanduser()
    if path.suffix in (".yaml", ".yml"):
        entries = list(_entries(path))
        if len(entries) != 1:
            raise ModelError(f"{path}: one entry is needed, it has {len(entries)}")
        return entries[0]
    if path.is_dir():
        return _entry(_slug(path.resolve().name), _config(path), directory=path)
    if model.count("/") == 1 and not path.is_absolute():
        return _entry(_slug(model.partition("/")[2]), _from_hub(model), hub=model)
    near = get_close_matches(model.lower(), _known(), n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(near)}" if near else "isthmus models lists the catalog"
    raise ModelError(
        f"no model {model!r} in the catalog; {hint}; or give a hub id organisation/name, "
        "a directory or a YAML file"
    )


def closed(model: str) -> Entry | None:
    """The entry of a model of the catalog whose weights are not published; None of any other."""
    entry = _known().get(model.lower())
    return entry if entry is not None and entry.weights == "closed" else None


def spec(entry: Entry) -> ModelSpec:
    """What a run needs to load a model: its package if that is installed, else the hub.

    Raises:
        ClosedWeights: its weights are not published.
        ModelError: its entry says nothing of where its weights are.
    """
    if entry.weights == "closed":
        raise ClosedWeights(closed_line(entry))
    if entry.package is not None and _installed(entry.package):
        return ModelSpec(name=entry.name, package=entry.package, sha256=entry.sha256)
    if entry.directory is not None:
        return ModelSpec(name=entry.name, directory=entry.directory)
    if entry.hub is None:
        raise ModelError(f"model {entry.name}: its entry has no hub id, directory or package")
    return ModelSpec(name=entry.name, hub=entry.hub)


@cache
def _known() -> dict[str, Entry]:
    known = dict(fleet())
    for entry in fleet().values():
        for name in (*entry.aliases, *([entry.hub.lower()] if entry.hub else [])):
            assert name not in known, f"{name} stands for two models"
            known[name] = entry
    return known


def _entries(path: Path) -> Iterator[Entry]:
    raw = read_yaml(path, ModelError)
    for fields in raw if isinstance(raw, list) else [raw]:
        if not isinstance(fields, dict):
            raise ModelError(f"{path}: an entry is a mapping with a name and a config")
        try:
            yield Entry.model_validate(fields)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(step) for step in fault["loc"]) or str(fields.get("name", ""))
            message = fault["msg"].removeprefix("Value error, ")
            raise ModelError(f"{path}: {where}: {message}") from None


def _entry(name: str, config: dict[str, Any], **source: Any) -> Entry:
    return Entry(name=name, config=config, **source)


def _slug(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name.lower())
    return kept.strip(".-")[:64] or "model"


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ModelError(f"{directory} has no config.json")
    return read_json(path)


def _from_hub(model: str) -> dict[str, Any]:
    # Not at the top: only models that are not in the catalog need it.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would tell of each attempt, and the error says enough
    try:
        return read_json(Path(hf_hub_download(model, "config.json")))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{model} is not in the catalog, and its config.json cannot be fetched: {reason}"
        ) from error


def _installed(package: str | tuple[str, ...]) -> bool:
    parts = (package,) if isinstance(package, str) else package
    return all(importlib.util.find_spec(part.partition("/")[0]) is not None for part in parts)
