"""Names in a run file that stand for what the house knows: models of the catalog, concepts."""

from typing import Any

from actors.catalog import SOURCES, ClosedWeights, ModelError, closed_line
from actors.fleet import closed, find, spec
from cluster.yaml_file import read_yaml
from jobs.names import ROOT, file_names, one_of

CONCEPTS = ROOT / "configs" / "concepts"


class ConfigError(ValueError):
    """A run file that cannot be used; the text has one line for each thing that is wrong."""


RECIPE_NAMES = file_names("actors/derived")
CONCEPT_NAMES = file_names("configs/concepts", ".yaml")


def written_out(run: dict[str, Any]) -> dict[str, Any]:
    """The content of a run file with every name replaced by what it stands for.

    Models whose weights are closed stand apart, by name, where there are two others at least. What
    has another shape than a run file's is left as it is, to be refused by that.

    Raises:
        ConfigError: a name stands for nothing.
        ModelError, ClosedWeights: as `actors.fleet.find`.
    """
    if isinstance(models := run.get("models"), list):
        try:
            names = _closed(models)
            opened = [model for model in models if _name(model) not in names]
            run = run | {"models": _with_sources(opened)}
            if names and isinstance(told := run.get("closed", []), list):
                run = run | {"closed": list(dict.fromkeys([*told, *names]))}
        except ClosedWeights:
            raise
        except (ConfigError, ModelError) as error:
            raise ConfigError(f"models: {error}") from None
    steering = run.get("steering")
    if isinstance(steering, dict) and isinstance(concepts := steering.get("concepts"), list):
        try:
            written = [_concept(each) if isinstance(each, str) else each for each in concepts]
        except ConfigError as error:
            raise ConfigError(f"steering.concepts: {error}") from None
        run = run | {"steering": steering | {"concepts": written}}
    return run


def _closed(models: list[Any]) -> list[str]:
    """The names of those whose weights are not published.

    Raises ClosedWeights, a line for each, where fewer than two others are left.
    """
    listed = [name for model in models if (name := _name(model)) is not None]
    entries = {name: entry for name in listed if (entry := closed(name)) is not None}
    if entries and len(models) - len(entries) < 2:
        raise ClosedWeights("\n".join(closed_line(entry) for entry in entries.values()))
    return list(entries)


def _name(model: Any) -> str | None:
    """What a model of a run is called, if nothing but the catalog says what it is."""
    if isinstance(model, dict) and all(model.get(source) is None for source in SOURCES):
        model = model.get("name")
    return model if isinstance(model, str) else None


def _concept(name: str) -> dict[str, Any]:
    """What is in the file of a concept; files that it names are beside it."""
    one_of("concept", name, CONCEPT_NAMES, ConfigError)
    concept = read_yaml(CONCEPTS / f"{name}.yaml", ConfigError)
    assert isinstance(concept, dict), f"{name}.yaml is a mapping"
    return {"name": name} | _beside(concept)


def _beside(part: dict[str, Any]) -> dict[str, Any]:
    """The same with every file in the folder of concepts."""
    whole = {key: _beside(each) if isinstance(each, dict) else each for key, each in part.items()}
    return whole | ({"file": str(CONCEPTS / part["file"])} if "file" in part else {})


def _with_sources(models: list[Any]) -> list[Any]:
    """The models with every name that stands for a model replaced by it."""
    named = {m["name"]: m for m in models if isinstance(m, dict) and isinstance(m.get("name"), str)}
    return [_with_source(model, named, ()) for model in models]


def _with_source(model: Any, named: dict[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(model, str):
        if model in above:
            raise ConfigError(" is made from ".join((*above, model)))
        if model in named:
            return _with_source(named[model], named, above)
        return spec(find(model)).model_dump(exclude_none=True)
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return model
    derived = model.get("derived")
    if isinstance(derived, dict) and "base" in derived:
        one_of("recipe", str(derived.get("recipe")), RECIPE_NAMES, ConfigError)
        base = _with_source(derived["base"], named, (*above, model["name"]))
        return model | {"derived": derived | {"base": base}}
    if not any(model.get(source) is not None for source in SOURCES):
        try:
            return spec(find(model["name"])).model_dump(exclude_none=True) | model
        except ClosedWeights:
            raise
        except ModelError as error:
            sources = ", ".join(SOURCES)
            raise ConfigError(f"{error}; or give one of {sources}") from None
    return model
