"""The run file: what a sweep does, and the only home of its defaults.

Validated before anything heavy is imported. The names of fitters, suites and roles are the names of
the files (or keys) that hold them, so adding one needs no edit here.
"""

import os
from math import ceil
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from actors.catalog import ClosedWeights, ModelError, ModelSpec
from actors.corpora import CorpusSpec
from actors.fleet import closed
from cluster.storage import split_location
from cluster.yaml_file import read_yaml
from jobs.names import file_names
from jobs.sections import (
    Adapters,
    Caches,
    Count,
    Routes,
    Section,
    Share,
    SoftPrompts,
    Steering,
    one_of_names,
)
from jobs.shorthand import ConfigError, written_out

FITTER_NAMES = file_names("alignment/fitters")
ROLE_NAMES = ("feature_extraction", "representation", "decision_making")
CARGOS = file_names("jobs/cargos")
KIND_NAMES = ("residual", "attention", "mlp")

FitterName = Annotated[str, one_of_names("fitter", FITTER_NAMES)]
RoleName = Annotated[str, one_of_names("role", ROLE_NAMES)]
KindName = Annotated[str, one_of_names("kind of site", KIND_NAMES)]


def home() -> Path:
    """Where results live unless the run file says otherwise: $ISTHMUS_HOME, or ~/isthmus."""
    return Path(os.environ.get("ISTHMUS_HOME", "~/isthmus")).expanduser().absolute()


def _location(text: str) -> str:
    split_location(text)
    return text


def _gpus(count: float) -> float:
    if count > 1 and not count.is_integer():
        raise ValueError("a model lies on a share of one GPU, or on several whole ones")
    return count


class Anchors(Section):
    """The text that maps are fitted on, and how it is cut up.

    `texts` are drawn by hash. A shard is what is lost when a worker dies; a batch is what travels.
    """

    corpora: Annotated[tuple[CorpusSpec, ...], Field(min_length=1)]
    texts: Annotated[int, Field(ge=8)] = 288
    shard_texts: Count = 32
    batch_texts: Count = 8
    folds: Annotated[int, Field(ge=2)] = 4

    @model_validator(mode="after")
    def _shards_for_folds(self) -> Self:
        shards = ceil(self.texts / self.shard_texts)
        if shards < self.folds:
            raise ValueError(
                f"{self.texts} texts in shards of {self.shard_texts} make {shards} shards, "
                f"and {self.folds} folds need at least as many"
            )
        return self


class Similarity(Section):
    """All-layer similarity, over about this many rows of the first shards."""

    rows: Annotated[int, Field(ge=128)] = 2000
    neighbours: Count = 10
    permutations: Annotated[int, Field(ge=20)] = 100


class Maps(Section):
    """Which sites are mapped, every kind at every role, and by which fitters.

    `fitters` stand in the order in which they are tried: the simplest that does as well as the
    best, on dev prompts, is used.
    """

    kinds: Annotated[tuple[KindName, ...], Field(min_length=1)] = ("residual",)
    roles: Annotated[tuple[RoleName, ...], Field(min_length=1)] = ROLE_NAMES
    fitters: Annotated[tuple[FitterName, ...], Field(min_length=1)] = (
        "ridge",
        "procrustes",
    )


class Cluster(Section):
    """Where it runs. No `address`: the cluster of the job, else a Ray of its own, right here.

    A model is held by one process or sharded over several, its ranks. `gpus_per_model` is how many
    GPUs each model is spread over: 0 is none, a share (0.25, say) lets several models lie on one,
    and left out it is as few whole ones as hold the model, where the cluster has GPUs at all.
    `ranks` says it of single models, by name; without GPUs a rank has a process with
    `cpus_per_model`. How a model is held is no part of any address, as threads are not: its numbers
    agree to rounding (about 1e-6), and what is there already stays as it is.

    `grows_by` is the file of a cluster that starts machines by itself, as ray_cluster.yaml: models
    are then placed on those that may come, not only on those that are there. `patience` is the
    longest, in seconds, that a sharded model may take over one call before it is started anew.
    """

    address: str | None = None
    grows_by: Path | None = None
    cpus_per_model: Share = 1.0
    gpus_per_model: Annotated[float, Field(ge=0), AfterValidator(_gpus)] | None = None
    ranks: dict[str, Count] = Field(default_factory=dict)
    threads_per_model: Count = 1
    in_flight: Annotated[int, Field(ge=1, le=64)] = 3
    restarts: Annotated[int, Field(ge=0)] = 3
    patience: Annotated[float, Field(ge=5, allow_inf_nan=False)] = 600


class Tracking(Section):
    """Where MLflow keeps the results. No `uri`: SQLite in the run's home."""

    uri: str | None = None
    experiment: str = "isthmus"


class RunFile(Section):
    """One sweep: every ordered pair of `models`, every cargo that has a section.

    `store` is where blobs are: a directory that every machine sees, or `s3://bucket/prefix`; in
    `home` if it is left out. `closed` are models whose weights are not published, which may stand
    under `models` as well: nothing but text reaches them, and the matrix says so. Each `seed` draws
    other anchors, other texts for the vectors, other controls.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    home: Path = Field(default_factory=home)
    store: Annotated[str, AfterValidator(_location)] | None = None
    seed: int = 0
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=2)]
    closed: tuple[str, ...] = ()
    anchors: Anchors
    similarity: Similarity = Similarity()
    maps: Maps = Maps()
    steering: Steering | None = None
    kv_cache: Caches | None = None
    lora: Adapters | None = None
    soft_prompt: SoftPrompts | None = None
    routes: Routes | None = None
    cluster: Cluster = Cluster()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _distinct_models(self) -> Self:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are named {twice[0]}; names are distinct")
        return self

    @model_validator(mode="after")
    def _closed_weights(self) -> Self:
        for name in self.closed:
            if closed(name) is None:
                raise ValueError(f"closed: {name!r} is no model of the catalog with closed weights")
        return self

    @model_validator(mode="after")
    def _some_cargo(self) -> Self:
        if all(getattr(self, cargo) is None for cargo in CARGOS):
            raise ValueError(f"nothing is carried: a run has a section {' or '.join(CARGOS)}")
        return self

    @model_validator(mode="after")
    def _something_to_route(self) -> Self:
        routable = self.steering is not None or self.lora is not None
        if self.routes is not None and not (routable and len(self.models) > 2):
            raise ValueError(
                "routes: steering vectors and adapters are sent through other models, so that a "
                "section steering or lora and three models are needed; there are "
                f"{len(self.models)}"
            )
        return self

    @model_validator(mode="after")
    def _anchors_to_refit_on(self) -> Self:
        if self.lora is not None and self.lora.texts > self.anchors.texts:
            raise ValueError(
                f"lora.texts: {self.lora.texts} of the anchors, and anchors.texts is "
                f"{self.anchors.texts}"
            )
        return self

    @model_validator(mode="after")
    def _named_models(self) -> Self:
        names = [model.name for model in self.models]
        named = {"cluster.ranks": tuple(self.cluster.ranks)}
        if self.soft_prompt is not None:
            named["soft_prompt.encoders"] = self.soft_prompt.encoders
            named["soft_prompt.later"] = self.soft_prompt.later
        for place, some in named.items():
            for name in some:
                if name not in names:
                    raise ValueError(f"{place}: no model {name!r}; allowed: {', '.join(names)}")
        return self

    @property
    def without_cargo(self) -> "RunFile":
        """The same models and anchors, with nothing to be carried."""
        return self.model_copy(update=dict.fromkeys((*CARGOS, "routes")))

    @property
    def steers(self) -> Steering:
        """How it steers, if it does."""
        assert self.steering is not None, f"{self.name} does not steer"
        return self.steering

    @property
    def folder(self) -> Path:
        """Where this run's page, matrix and log are."""
        return self.home.expanduser().absolute() / "runs" / self.name

    @property
    def store_location(self) -> str:
        """Where this run's blobs are: a directory, or `s3://bucket/prefix`."""
        return self.store or str(self.home.expanduser().absolute() / "store")

    @property
    def tracking_uri(self) -> str:
        """The MLflow store of this run."""
        return self.tracking.uri or tracking_uri(self.home)


def tracking_uri(at: Path) -> str:
    """The MLflow store that a home holds."""
    return f"sqlite:///{at.expanduser().absolute() / 'mlflow.db'}"


def read_run_file(path: Path) -> RunFile:
    """The run file at `path`.

    A model may be written as its name alone, if the catalog has it; so may the base of a derived
    one, or it names another model of the run.

    Raises:
        ConfigError: one line for each wrong key or value: where, what it is, what is allowed.
        ClosedWeights: a model that nothing but text leaves or reaches.
    """
    raw = read_yaml(path, ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a run file is a mapping; see configs/demo.yaml")
    try:
        raw = written_out(raw)
    except ClosedWeights:
        raise
    except (ConfigError, ModelError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return RunFile.model_validate(raw)
    except ValidationError as error:
        lines = [f"{path}: {_plainly(fault)}" for fault in _faults(error)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _faults(error: ValidationError) -> list[dict[str, Any]]:
    """What is wrong, without the lists that are called too short for a wrong entry alone."""
    faults: list[dict[str, Any]] = [dict(fault) for fault in error.errors()]
    within = {place[:end] for place in (f["loc"] for f in faults) for end in range(len(place))}
    return [f for f in faults if f["type"] != "too_short" or f["loc"] not in within]


def _plainly(fault: dict[str, Any]) -> str:
    place = fault["loc"]
    where = ".".join(str(step) for step in place) or "the run"
    allowed = _keys_at(place[:-1])
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such key; allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return f"{where}: missing"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if isinstance(fault["input"], str | int | float | bool | None):
        return f"{where}: {fault['input']!r}: {message}"
    return f"{where}: {message}"


def _keys_at(place: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys of the section that `place` leads to."""
    section: type[BaseModel] = RunFile
    for step in place:
        if isinstance(step, str) and step in section.model_fields:
            section = _section_in(section.model_fields[step].annotation) or section
    return tuple(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, UnionType, Annotated):
        found = (_section_in(inner) for inner in get_args(annotation))
        return next((section for section in found if section), None)
    return None
