"""From a model of the catalog to a live one, in a process of its own or in several."""

from dataclasses import dataclass
from pathlib import Path

from actors.catalog import ModelFacts, ModelSpec
from actors.engine import Held
from actors.host import ModelHost
from cluster.gang import Gang
from cluster.placement import GIB, Request


@dataclass(frozen=True)
class Live:
    """A model that is loaded, and the process that holds it."""

    facts: ModelFacts
    host: Gang


@dataclass(frozen=True)
class Holding:
    """How a model is held: in how many processes, what each of them asks for, and why so.

    `whole` is in one process, `sharded` over the ranks of one node, `offloaded` with its weights in
    host memory, passed through the GPUs layer by layer (ZeRO stage 3). Memory is host memory, of
    each rank.
    """

    name: str
    held: Held
    ranks: int
    num_cpus: float
    num_gpus: float
    memory_bytes: int | None
    reason: str

    def __str__(self) -> str:
        over = "" if self.ranks == 1 else f" over {self.ranks} ranks, on each of them"
        wants = self.request.bundles()[0]
        parts = [f"{wants[name]:g} {name}" for name in ("CPU", "GPU") if name in wants]
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / GIB:.1f} GiB of host memory")
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.name}: {self.held}{over}, {', '.join(parts)}{why}"

    @property
    def request(self) -> Request:
        """The same as it is asked of a cluster."""
        return Request(
            f"host-{self.name}", self.num_cpus, self.num_gpus, self.memory_bytes, self.ranks
        )


def host(
    spec: ModelSpec,
    cache: Path,
    holding: Holding,
    *,
    threads: int,
    restarts: int,
    patience: float,
) -> Gang:
    """Begin to load a model as `holding` says; what goes wrong comes out of `ready`.

    A host holds nothing but its weights, so one that dies is started again and its call repeated,
    up to `restarts` times. Raises InsufficientResources where the cluster has no room for it.
    """
    request = holding.request
    return Gang.launch(
        ModelHost,
        spec,
        cache,
        threads,
        holding.held,
        name=request.name,
        ranks=request.ranks,
        num_cpus=request.num_cpus,
        num_gpus=request.num_gpus,
        memory_bytes=request.memory_bytes,
        threads=threads,
        restarts=restarts,
        retries=restarts,
        patience=patience,
    )
