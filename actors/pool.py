"""From a catalog of models to live ones: each in a process of its own, loaded once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.catalog import ModelFacts, ModelSpec
from actors.host import ModelHost
from cluster.gang import Gang


@dataclass(frozen=True)
class Live:
    """A model that is loaded, and the process that holds it."""

    facts: ModelFacts
    host: Gang


@contextmanager
def pool(
    specs: Sequence[ModelSpec],
    cache: Path,
    *,
    num_cpus: float,
    threads: int,
    restarts: int,
) -> Iterator[dict[str, Live]]:
    """Load every model at once, by name; end their processes on the way out.

    A host holds nothing but its weights, so one that dies is started again and its call repeated,
    up to `restarts` times.

    Raises:
        ModelError: a source is missing, broken or not supported.
        InsufficientResources: the cluster has no room for one of them.
    """
    hosts: dict[str, Gang] = {}
    try:
        for spec in specs:
            hosts[spec.name] = Gang.launch(
                ModelHost,
                spec,
                cache,
                threads,
                name=f"host-{spec.name}",
                num_cpus=num_cpus,
                threads=threads,
                restarts=restarts,
                retries=restarts,
            )
        yield {name: Live(host.call("facts"), host) for name, host in hosts.items()}
    finally:
        for host in hosts.values():
            host.stop()
