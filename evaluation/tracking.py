"""The matrix into MLflow, and maps out of it. Only it imports mlflow, and what MLflow runs.

A sweep is one parent run; each (source, target, cargo, concept) is a child of it and a registered
model. Runs and versions are tagged with the address of the sweep, so tracking the same matrix
again, after a kill or not, continues where it stopped and registers nothing twice.
"""

import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from evaluation.cells import Key
from evaluation.figure import matrix_figure
from evaluation.matrix import Matrix
from evaluation.pulled_readme import LOADERS, how_to_use
from evaluation.record import (
    Recorded,
    lacking,
    not_worse,
    recorded,
    recorded_route,
    slug,
    sweep_metrics,
    sweep_tags,
)

# Before mlflow is imported: it asks for these once. Nothing is reported to anybody.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
with warnings.catch_warnings():
    # MLflow warns of a type hint of its own.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred", UserWarning)
    import mlflow.db
    import mlflow.pyfunc
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Run, RunTag
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

CHAMPION = "champion"
NEEDS = ("mlflow", "torch", "safetensors")
SWEEP, PART = "isthmus.sweep", "isthmus.part"
COMPLETE, JUDGED = "isthmus.complete", "isthmus.judged"
SQLITE = "sqlite:///"


class TrackingError(ValueError):
    """A tracking store, model or version that is not there, or cannot be used."""


@dataclass(frozen=True)
class TrackedRun:
    """Where a matrix went. `versions` is the version of every part of this sweep: the name of a
    registered model, and behind it through which models it went."""

    run_id: str
    experiment_id: str
    link: str
    versions: Mapping[str, str]


def track(
    matrix: Matrix,
    *,
    uri: str,
    experiment: str,
    maps: Mapping[Key, Path],
    routed: Mapping[Key, Path],
    page: Path,
) -> TrackedRun:
    """Record a matrix, its page and its maps; the same matrix again changes nothing.

    The alias `champion` of a registered model moves to the new version when there is none yet, or
    when the new retention is not worse: its low bound or its point value lacks no more of native
    than the old one. One that is undefined, or of no real effect, replaces only such a one.

    Args:
        matrix: what was measured; its address is what makes a second call continue the first.
        uri: `sqlite:///file` or the http address of an MLflow server. Beside an SQLite file, the
            artifacts go to the directory `artifacts` next to it.
        experiment: name of the experiment, made where there is none.
        maps: for every cell, a directory with the files of what went directly.
        routed: for routes that are recommended, one with those of what went through other models;
            it becomes one more version.
        page: the HTML page of this matrix.

    Raises:
        TrackingError: the store cannot be used, or files are missing; one line.
    """
    every = [(recorded(matrix, cell), maps.get(cell.key)) for cell in matrix.cells]
    routes = [of for of in matrix.routes if of.recommended and of.key in routed]
    every += [(recorded_route(matrix, of), routed[of.key]) for of in routes]
    for each, place in every:
        missing = [n for n in each.files if place is None or not (place / n).is_file()]
        if missing:
            place = place or "no directory given"
            raise TrackingError(f"{each.part}: {', '.join(missing)} missing ({place})")
    with _store(uri, create=True) as client:
        experiment_id = _experiment(client, experiment, uri)
        parent = _run(client, experiment_id, matrix.run, {SWEEP: matrix.address, PART: "sweep"})
        versions = {
            each.part: _track_part(client, parent, matrix.address, each, place)
            for each, place in every
            if place is not None
        }
        if COMPLETE not in parent.data.tags:
            _log_parent(client, parent, matrix, page)
        link = f"{uri} (experiment {experiment}, run {parent.info.run_id})"
        if uri.startswith("http"):
            link = f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{parent.info.run_id}"
        return TrackedRun(parent.info.run_id, experiment_id, link, versions)


def pull(name: str, which: str, *, uri: str, to: Path) -> Path:
    """Fetch one registered map into a new directory, which appears whole or not at all.

    Args:
        name: registered model, `source--target--cargo--concept`.
        which: an alias (`champion`) or a version number.
        uri: the store, as in `track`.
        to: the directory to make; its README.txt says how to use what is in it.

    Raises:
        TrackingError: no such store, name, alias or version (the line lists what there is), or the
            directory is already there.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise TrackingError(f"{to} is already there: give another directory, or remove it")
    with _store(uri, create=False) as client:
        chosen = _find_version(client, name, which)
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as aside:
            fetched = Path(aside) / "model"
            fetched.mkdir()
            location = client.get_model_version_download_uri(name, chosen.version)
            mlflow.artifacts.download_artifacts(
                artifact_uri=location, dst_path=str(fetched), tracking_uri=_absolute(uri)
            )
            whole = next(fetched.rglob("MLmodel")).parent
            cargo = whole / "artifacts" / "cargo"
            facts = json.loads((cargo / "cargo.json").read_text())
            (file,) = (cargo / name for name in LOADERS if (cargo / name).is_file())
            text = how_to_use(file, {"name": name, "version": chosen.version, **facts})
            (whole / "README.txt").write_text(text)
            whole.replace(to)
    return to


def best(uri: str, asked: Mapping[str, str]) -> tuple[str, str]:
    """The name and version of what is registered with all of these tags (`source`, `target`,
    `cargo`, `concept`) and comes nearest to the native effect.

    Raises:
        TrackingError: nothing of the kind, or nowhere is there a native effect that is real.
    """
    found = [of for of, _ in versions(uri, asked) if "retention" in of.tags]
    if not found:
        said = ", ".join(f"{key} {value}" for key, value in asked.items())
        raise TrackingError(f"nothing with a real native effect is registered of {said} in {uri}")
    chosen = min(found, key=lambda of: (lacking(of.tags), -int(of.version)))
    return chosen.name, str(chosen.version)


def versions(uri: str, tags: Mapping[str, str]) -> list[tuple[ModelVersion, Run]]:
    """Every registered version with all of these tags, and its run; none where no store is yet."""
    if uri.startswith(SQLITE) and not _database(uri).is_file():
        return []
    asked = " and ".join(f"tag.`{key}` = '{value}'" for key, value in tags.items())
    with _store(uri, create=False) as client:
        found = client.search_model_versions(asked)
        return [(version, client.get_run(str(version.run_id))) for version in found]


# --- the store ---------------------------------------------------------------------------------


@contextmanager
def _store(uri: str, *, create: bool) -> Iterator[MlflowClient]:
    """A client of the store; every complaint of MLflow comes out as one line of ours."""
    try:
        if not uri.startswith(SQLITE):
            if not uri.startswith(("http://", "https://")):
                raise TrackingError(
                    f"tracking store {uri!r} is not one of sqlite:///file, http://, https://"
                )
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
            return
        database = _database(uri)
        if not create and not database.is_file():
            raise TrackingError(f"no tracking store at {database}: run a sweep first")
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            if create:
                _migrate(database)
            yield MlflowClient(tracking_uri=_absolute(uri), registry_uri=_absolute(uri))
    except MlflowException as error:
        raise TrackingError(f"tracking store {uri}: {str(error).splitlines()[0]}") from error


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).absolute()


def _absolute(uri: str) -> str:
    return f"{SQLITE}{_database(uri)}" if uri.startswith(SQLITE) else uri


def _migrate(database: Path) -> None:
    """Bring the schema up to date. A new file is built aside: a kill leaves no half-made schema."""
    upgrade = mlflow.db.upgrade.callback
    assert upgrade is not None, "mlflow db upgrade is a command"
    if database.exists():
        upgrade(f"{SQLITE}{database}")
        return
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=f".{database.name}.") as aside:
        fresh = Path(aside) / database.name
        upgrade(f"{SQLITE}{fresh}")
        fresh.replace(database)


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    beside = _database(uri).parent / "artifacts"
    location = beside.as_uri() if uri.startswith(SQLITE) else None
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)  # somebody else made it in between
        assert found is not None, "an experiment that exists can be got"
    if found.lifecycle_stage != "active":
        raise TrackingError(f"experiment {name} was deleted in {uri}: restore it or name another")
    return found.experiment_id


def _run(client: MlflowClient, experiment_id: str, name: str, tags: dict[str, str]) -> Run:
    """The run with these tags, made where there is none."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return found[0] if found else client.create_run(experiment_id, tags=tags, run_name=name)


def _track_part(
    client: MlflowClient, parent: Run, address: str, of: Recorded, directory: Path
) -> str:
    """One child run and one model version; gives the version."""
    tags = {SWEEP: address, PART: of.part, "mlflow.parentRunId": parent.info.run_id}
    child = _run(client, parent.info.experiment_id, of.part, tags)
    tracked = _version_of_sweep(client, of, address)
    if tracked is None:
        model = _log_model(client, child, of, [directory / name for name in of.files])
        tracked = _register(client, of.name, child, model, of.tags | of.kept | {SWEEP: address})
    _judge(client, of.name, tracked)
    if COMPLETE not in child.data.tags:
        _log(client, child, of.metrics, of.tags)
        _finish(client, child)
    return str(tracked.version)


def _log_parent(client: MlflowClient, parent: Run, matrix: Matrix, page: Path) -> None:
    run_id = parent.info.run_id
    _log(client, parent, sweep_metrics(matrix), sweep_tags(matrix))
    client.log_text(run_id, matrix.to_json(), "matrix.json")
    rows = matrix.table()
    columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
    # log_table appends to what an interrupted call may have left: start from an empty table.
    client.log_dict(run_id, {"columns": [], "data": []}, "matrix_table.json")
    client.log_table(run_id, columns, "matrix_table.json")
    for facet, cells in matrix.facets.items():
        name = "_".join(map(slug, ("matrix", *facet)))
        client.log_figure(run_id, matrix_figure(matrix, cells), f"{name}.png")
    client.log_artifact(run_id, str(page))
    _finish(client, parent)


def _log(client: MlflowClient, run: Run, metrics: dict[str, float], tags: dict[str, str]) -> None:
    # The start of the run as time stamp: logging again after a kill adds no second point.
    stamp = run.info.start_time
    points = [Metric(key, x, stamp, 0) for key, x in metrics.items() if math.isfinite(x)]
    client.log_batch(
        run.info.run_id, metrics=points, tags=[RunTag(key, value) for key, value in tags.items()]
    )


def _finish(client: MlflowClient, run: Run) -> None:
    client.set_terminated(run.info.run_id)
    client.set_tag(run.info.run_id, COMPLETE, "true")


# --- registered models -------------------------------------------------------------------------


def _log_model(
    client: MlflowClient, child: Run, of: Recorded, files: Sequence[Path]
) -> tuple[str, str]:
    """The logged model of a child run, whole: its id and where its files are."""
    experiment_id, run_id = child.info.experiment_id, child.info.run_id
    for left in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if left.status == LoggedModelStatus.READY:
            return left.model_id, left.artifact_location
        client.delete_logged_model(left.model_id)  # an interrupted call left it half uploaded
    # Unlike a registered model, a logged one may have no dot in its name.
    plain = of.name.replace(".", "_")
    logged = client.create_logged_model(experiment_id, plain, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as scratch:
        cargo, model = Path(scratch) / "cargo", Path(scratch) / "model"
        cargo.mkdir()
        for file in files:
            shutil.copyfile(file, cargo / file.name)
        (loader,) = (LOADERS[file.name] for file in files if file.name in LOADERS)
        (cargo / "cargo.json").write_text(json.dumps(of.facts, indent=2))
        mlflow.pyfunc.save_model(
            path=str(model),
            python_model=str(Path(__file__).with_name(loader)),
            artifacts={"cargo": str(cargo)},
            pip_requirements=[f"{needed}=={version(needed)}" for needed in NEEDS],
        )
        client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id, logged.artifact_location


def _register(
    client: MlflowClient, name: str, child: Run, model: tuple[str, str], tags: dict[str, str]
) -> ModelVersion:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id, location = model
    return client.create_model_version(
        name, location, child.info.run_id, tags=tags, model_id=model_id
    )


def _judge(client: MlflowClient, name: str, new: ModelVersion) -> None:
    """Move the champion to the new version unless that is worse; decided once for a version."""
    if JUDGED in new.tags:
        return
    every = f"name = '{name}'"
    settled = {of.version for of in client.search_model_versions(every) if JUDGED in of.tags}
    aliases = client.get_registered_model(name).aliases
    old = client.get_model_version(name, aliases[CHAMPION]) if CHAMPION in aliases else None
    chosen = new if old is None or not_worse(new.tags, old.tags) else None
    said = "kept old" if chosen is None else "champion"
    while chosen:
        _move_champion(client, name, chosen.version)
        # Other drivers judge by what they saw before this: whoever moves it last has seen all.
        now = str(client.get_registered_model(name).aliases[CHAMPION])
        found = sorted(client.search_model_versions(every), key=lambda of: int(of.version))
        rivals = {str(of.version): of for of in found if of.version not in settled}
        winner = reduce(lambda a, b: b if not_worse(b.tags, a.tags) else a, rivals.values())
        chosen = winner if now in rivals and now != str(winner.version) else None
    client.set_model_version_tag(name, new.version, JUDGED, said)


def _move_champion(client: MlflowClient, name: str, version: str) -> None:
    try:
        client.set_registered_model_alias(name, CHAMPION, version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client.set_registered_model_alias(name, CHAMPION, version)  # somebody else has just made it


def _version_of_sweep(client: MlflowClient, of: Recorded, address: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{of.name}' and tag.`{SWEEP}` = '{address}'")
    return next((each for each in found if each.tags.get("path") == of.tags.get("path")), None)


def _find_version(client: MlflowClient, name: str, which: str) -> ModelVersion:
    found = client.search_registered_models(f"name = '{name}'")
    if not found:
        there = client.search_registered_models(max_results=1000, order_by=["name"])
        known = ", ".join(of.name for of in there) or "none yet"
        raise TrackingError(f"no registered model {name}; there are: {known}")
    aliases = found[0].aliases
    versions = {str(v.version): v for v in client.search_model_versions(f"name = '{name}'")}
    chosen = versions.get(str(aliases.get(which, which)))
    if chosen is None:
        names = ", ".join((*sorted(aliases), *sorted(versions, key=int)))
        raise TrackingError(f"{name} has no alias or version {which}; there are: {names}")
    return chosen
