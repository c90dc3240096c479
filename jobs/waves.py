"""The models of a run, loaded when they are asked and let go when others need their place."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from actors.catalog import ModelError, ModelFacts, ModelSpec
from actors.checkpoints import facts
from actors.pool import Live, host
from actors.weights import default_cache, prepared
from cluster.gang import Gang
from cluster.node_types import node_of, node_types
from cluster.placement import ClusterFacts, Node
from jobs.config import ConfigError, RunFile
from jobs.placing import Wave, models_of, place
from jobs.progress import Reporter
from jobs.texts import Texts


class Crew:
    """Every model of a run, in waves: those of one wave fit into the cluster together.

    A model is loaded when something is first asked of it, and stays until a model of another wave
    is asked. `facts` are those of the models that are known by now, in the order of the run.
    """

    def __init__(
        self,
        names: Sequence[str],
        waves: Sequence[Wave],
        launch: Callable[[str], Gang],
        known: Mapping[str, ModelFacts],
        reporter: Reporter,
    ) -> None:
        self.waves, self.loads = tuple(waves), 0
        self._names, self._launch, self._reporter = names, launch, reporter
        self._known = dict(known)
        self._hosts: dict[str, Gang] = {}
        _require_different(self.facts)

    @property
    def facts(self) -> dict[str, ModelFacts]:
        """What is known of the models, by name."""
        return {name: self._known[name] for name in self._names if name in self._known}

    def meet(self, names: Collection[str]) -> None:
        """Load those of one wave's models of which nothing is known."""
        self.live([name for name in names if name not in self._known])

    def live(self, names: Collection[str]) -> dict[str, Live]:
        """Models of one wave, loaded.

        Raises:
            ModelError: a source is missing, broken or not supported.
            InsufficientResources: the cluster has no room for one of them.
            ConfigError: one is not what is known of it, or the same as another.
        """
        absent = [name for name in names if name not in self._hosts]
        if absent:
            (wave,) = (wave for wave in self.waves if set(names) <= set(wave))
            self._keep_only(wave)
            several = len(self.waves) > 1
            title = f"loading {', '.join(absent)}" if several else "loading models"
            with self._reporter.stage(title):
                self._load([name for name in wave if name in absent])
        return {name: Live(self._known[name], self._hosts[name]) for name in names}

    def ready(self) -> None:
        """Wait until every model that is loaded is there, also one whose process was lost."""
        for loaded in self._hosts.values():
            loaded.ready()

    def release(self) -> None:
        """Let every model go."""
        self._keep_only(())

    def _load(self, names: Sequence[str]) -> None:
        # Each waits for its place: on a cluster that grows, for the machines of all at once.
        with ThreadPoolExecutor(len(names)) as threads:
            launched = {name: threads.submit(self._launch, name) for name in names}
        self._hosts |= {n: each.result() for n, each in launched.items() if not each.exception()}
        for each in launched.values():
            each.result()
        self.loads += len(names)
        for name in names:
            self._hosts[name].ready()
            self._learn(name, self._hosts[name].call("facts"))

    def _learn(self, name: str, found: ModelFacts) -> None:
        known = self._known.setdefault(name, found)
        if known.fingerprint != found.fingerprint:
            raise ConfigError(
                f"model {name}: its host has found another checkpoint than this machine has "
                f"(fingerprints {found.fingerprint[:12]} and {known.fingerprint[:12]})"
            )
        _require_different(self.facts)

    def _keep_only(self, names: Collection[str]) -> None:
        for name in [name for name in self._hosts if name not in names]:
            self._hosts.pop(name).stop()


def _require_different(models: Mapping[str, ModelFacts]) -> None:
    names: dict[str, str] = {}
    for name, model in models.items():
        if other := names.get(model.fingerprint):
            raise ConfigError(f"models: {other} and {name} are the same model; leave one out")
        names[model.fingerprint] = name


@contextmanager
def crew(run: RunFile, texts: Texts, cluster: ClusterFacts, reporter: Reporter) -> Iterator[Crew]:
    """The models of a run, placed and not loaded yet; they are let go on the way out.

    What their checkpoints on this machine say of them need not be asked of a host.

    Raises:
        InsufficientResources: one of them cannot be held.
        NodeTypeError: the file of `cluster.grows_by` is not one.
    """
    with reporter.stage("placing models"):
        here = {spec.name: _here(spec) for spec in run.models}
        nodes = (*cluster.nodes, *may_come(run.cluster.grows_by))
        placed = place(run, models_of(run, texts, here), nodes)
        known = {
            spec.name: facts(checkpoint, spec.name, spec.dtype)
            for spec in run.models
            if (checkpoint := here[spec.name]) is not None
        }
    for line in placed.lines:
        reporter.note(line)
    specs = {spec.name: spec for spec in run.models}

    def launch(name: str) -> Gang:
        return host(
            specs[name],
            default_cache(),
            placed.holdings[name],
            threads=run.cluster.threads_per_model,
            restarts=run.cluster.restarts,
            patience=run.cluster.patience,
        )

    gathered = Crew(list(specs), placed.waves, launch, known, reporter)
    try:
        yield gathered
    finally:
        gathered.release()


def may_come(cluster_file: Path | None) -> list[Node]:
    """Every machine that a cluster with this file may start; none without one.

    Raises NodeTypeError where the file is not one.
    """
    if cluster_file is None:
        return []
    kinds = node_types(cluster_file.expanduser())
    return [node_of(kind) for kind in kinds for _ in range(kind.most)]


def _here(spec: ModelSpec) -> Path | None:
    try:
        return prepared(spec, default_cache())
    except ModelError:
        return None  # another machine may have it, or else its host says what is wrong
