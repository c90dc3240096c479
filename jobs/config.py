"""The run file: what a sweep does, and the only home of its defaults.

Validated before anything heavy is imported. The names of fitters, suites and roles are the names of
the files (or keys) that hold them, so adding one needs no edit here.
"""

import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from actors.catalog import ClosedWeights, ModelError, ModelSpec
from actors.corpora import CorpusSpec
from cluster.storage import split_location
from cluster.yaml_file import read_yaml
from jobs.names import file_names
from jobs.shorthand import ConfigError, written_out

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


def _one_of(what: str, allowed: Sequence[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"no {what} of that name; allowed: {', '.join(allowed)}")
        return value

    return AfterValidator(check)


FITTER_NAMES = file_names("alignment/fitters")
SUITE_NAMES = file_names("evaluation/suites")
ROLE_NAMES = ("feature_extraction", "representation", "decision_making")
KIND_NAMES = ("residual", "attention", "mlp")

DIRECTION_NAMES = file_names("alignment/directions")

DirectionName = Annotated[str, _one_of("direction", DIRECTION_NAMES)]
FitterName = Annotated[str, _one_of("fitter", FITTER_NAMES)]
SuiteName = Annotated[str, _one_of("suite", SUITE_NAMES)]
RoleName = Annotated[str, _one_of("role", ROLE_NAMES)]
KindName = Annotated[str, _one_of("kind of site", KIND_NAMES)]


def home() -> Path:
    """Where results live unless the run file says otherwise: $ISTHMUS_HOME, or ~/isthmus."""
    return Path(os.environ.get("ISTHMUS_HOME", "~/isthmus")).expanduser().absolute()


def _location(text: str) -> str:
    split_location(text)
    return text


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Anchors(_Section):
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


class Similarity(_Section):
    """All-layer similarity, over about this many rows of the first shards."""

    rows: Annotated[int, Field(ge=128)] = 2000
    neighbours: Count = 10
    permutations: Annotated[int, Field(ge=20)] = 100


class Maps(_Section):
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


class Group(_Section):
    """The two sides of a concept in one domain or language."""

    positive: CorpusSpec
    negative: CorpusSpec


class Contrast(_Section):
    """Two sets of texts; a vector is extracted from the first `texts` of each by hash.

    `groups` give the two sides once for each domain or language; `texts` of each side of each group
    are taken, so that all groups count alike. With `paired`, the texts of the two sides belong
    together, one by one, and are read from the word on at which they part. `pool` is what stands
    for a text: the mean over its words, or its last word.
    """

    name: Name
    positive: CorpusSpec | None = None
    negative: CorpusSpec | None = None
    groups: dict[Name, Group] = Field(default_factory=dict)
    paired: bool = False
    pool: Literal["words", "last_word"] = "words"
    texts: Annotated[int, Field(ge=4)] = 160

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [side for side in ("positive", "negative") if getattr(self, side) is not None]
        if self.groups and given:
            raise ValueError(
                f"{self.name} has groups ({', '.join(self.groups)}) and {' and '.join(given)} "
                "beside them; either is enough"
            )
        if not self.groups and len(given) < 2:
            raise ValueError(f"{self.name} needs positive and negative, or groups of them")
        if len(self.groups) == 1:
            raise ValueError(f"{self.name} has one group, {next(iter(self.groups))}; at least two")
        return self

    @property
    def by_group(self) -> dict[str, Group]:
        """Both sides of every group; of a concept without groups, by its own name."""
        if self.positive is None or self.negative is None:
            return {f"{self.name}.{group}": sides for group, sides in self.groups.items()}
        return {self.name: Group(positive=self.positive, negative=self.negative)}


class Concept(Contrast):
    """What is steered towards, and the suite that tells whether it is: of the same name if left
    out."""

    suite: SuiteName = ""

    @model_validator(mode="before")
    @classmethod
    def _of_the_same_name(cls, raw: Any) -> Any:
        return {"suite": raw.get("name"), **raw} if isinstance(raw, dict) else raw


class Steering(_Section):
    """Steering vectors carried from each model into each other one, one for each concept.

    The vector of another concept is a control: that of the next in the list, or of `other`.
    `strengths` are in units of the length of a typical centred activation of the target at the
    site: the same grid, and the same length of vector, for native, carried and controls. The one
    used is the greatest whose native vector costs at most `neutral_kl` (nats per token) on dev.
    Neutral text is the first `neutral_words` words of each of `neutral_texts` texts. With
    `trained`, a map is also trained through each target, so that what vectors do to the next word
    of the source is kept: another way to carry, tried last. `relabellings` are vectors made of the
    same texts with their sides drawn at random: an effect is real if hardly any of them does as
    much. What is written after `judged_prompts` of the test prompts is read by judges.
    """

    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]
    other: Contrast | None = None
    direction: DirectionName = "difference_of_means"
    trained: bool = False
    strengths: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.05, 0.1, 0.2, 0.4)
    neutral_kl: Share = 0.05
    neutral_texts: Count = 8
    neutral_words: Annotated[int, Field(ge=2)] = 32
    random_directions: Annotated[int, Field(ge=20)] = 20
    relabellings: Annotated[int, Field(ge=20)] = 20
    shuffles: Count = 20
    judged_prompts: Annotated[int, Field(ge=2)] = 16
    samples: Count = 3
    sample_tokens: Count = 24
    bootstrap_draws: Annotated[int, Field(ge=200)] = 2000

    @model_validator(mode="after")
    def _another_for_each(self) -> Self:
        names = [each.name for each in self.contrasts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two concepts are named {twice[0]}; names are distinct")
        if len(names) == 1:
            raise ValueError("other: missing; a single concept needs another one as its control")
        return self

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Everything that vectors are extracted of."""
        return (*self.concepts, *(() if self.other is None else (self.other,)))

    def other_than(self, concept: str) -> str:
        """The concept whose vector is the control of this one."""
        if self.other is not None:
            return self.other.name
        names = [each.name for each in self.concepts]
        return names[(names.index(concept) + 1) % len(names)]


class Cluster(_Section):
    """Where it runs. No `address`: the cluster of the job, else a Ray of its own, right here.

    A model is held by one process or sharded over several, its ranks. `gpus_per_model` is how many
    GPUs each model is spread over: 0 is none, and left out it is as few as hold the model, where
    the cluster has GPUs at all. `ranks` says it of single models, by name; without GPUs a rank has
    a process with `cpus_per_model`. How a model is held is no part of any address, as threads are
    not: its numbers agree to rounding (about 1e-6), and what is there already stays as it is.

    `grows_by` is the file of a cluster that starts machines by itself, as ray_cluster.yaml: models
    are then placed on those that may come, not only on those that are there. `patience` is the
    longest, in seconds, that a sharded model may take over one call before it is started anew.
    """

    address: str | None = None
    grows_by: Path | None = None
    cpus_per_model: Share = 1.0
    gpus_per_model: Annotated[int, Field(ge=0)] | None = None
    ranks: dict[str, Count] = Field(default_factory=dict)
    threads_per_model: Count = 1
    in_flight: Annotated[int, Field(ge=1, le=64)] = 3
    restarts: Annotated[int, Field(ge=0)] = 3
    patience: Annotated[float, Field(ge=5, allow_inf_nan=False)] = 600


class Tracking(_Section):
    """Where MLflow keeps the results. No `uri`: SQLite in the run's home."""

    uri: str | None = None
    experiment: str = "isthmus"


class RunFile(_Section):
    """One sweep: every ordered pair of `models`, every cargo that has a section.

    `store` is where blobs are: a directory that every machine sees, or `s3://bucket/prefix`; in
    `home` if it is left out. Each `seed` draws other anchors, other texts for the vectors, other
    controls.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    home: Path = Field(default_factory=home)
    store: Annotated[str, AfterValidator(_location)] | None = None
    seed: int = 0
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=2)]
    anchors: Anchors
    similarity: Similarity = Similarity()
    maps: Maps = Maps()
    steering: Steering
    cluster: Cluster = Cluster()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _distinct_models(self) -> Self:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are named {twice[0]}; names are distinct")
        return self

    @model_validator(mode="after")
    def _ranks_of_models(self) -> Self:
        names = [model.name for model in self.models]
        for name in self.cluster.ranks:
            if name not in names:
                raise ValueError(f"cluster.ranks: no model {name!r}; allowed: {', '.join(names)}")
        return self

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
