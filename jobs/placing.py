"""How each model of a run is held on the machines that there are, and which at the same time."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TypeAlias

from actors.architectures import ARCHITECTURES
from actors.blueprint import BYTES, Blueprint, blueprint
from actors.catalog import ModelError, ModelSpec
from actors.checkpoints import read_json
from actors.fleet import find, fleet
from actors.pool import Held, Holding
from cluster.node_types import gpu_memory_gib
from cluster.placement import GIB, InsufficientResources, Node, Request
from jobs.config import RunFile
from jobs.footprint import Footprint, footprint, weights_per_gpu
from jobs.resident import FOLDER_BYTES, FOLDERS, Process, host, words_compared
from jobs.texts import Texts

Wave: TypeAlias = tuple[str, ...]

BATCH_TOKENS = 256  # of an anchor text, at the most
# Kept free on each GPU for CUDA's own context and for what allocators leave between blocks.
GPU_SPARE = GIB
FOLDER_MEMORY = len(FOLDERS) * FOLDER_BYTES


@dataclass(frozen=True)
class Model:
    """A model as far as it is known before it is loaded; `process` holds all of it on a CPU."""

    spec: ModelSpec
    blueprint: Blueprint | None
    process: Process | None


@dataclass(frozen=True)
class Placed:
    """How every model of a run is held, by name, and in which waves."""

    holdings: Mapping[str, Holding]
    waves: tuple[Wave, ...]
    machines: str

    @property
    def loads(self) -> int:
        """How often models are loaded: once to read, once to steer, but for the last wave once."""
        return 2 * len(self.holdings) - len(self.waves[-1])

    @property
    def lines(self) -> list[str]:
        """One line for each model, and one more where they are not all loaded together."""
        lines = [str(holding) for holding in self.holdings.values()]
        if len(self.waves) > 1:
            lines.append(
                f"{len(self.holdings)} models on {self.machines}: {len(self.waves)} waves, "
                f"{self.loads} loads"
            )
        return lines


def known_blueprint(spec: ModelSpec, checkpoint: Path | None) -> Blueprint:
    """What a model is like, from its checkpoint if it is here, without fetching or making it.

    Raises:
        ModelError: it is not here, and the catalog does not know it either.
    """
    if checkpoint is not None:
        return blueprint(read_json(checkpoint / "config.json"))
    if spec.hub is not None:
        return find(spec.hub).blueprint
    if spec.name in fleet():
        return find(spec.name).blueprint
    raise ModelError(
        f"model {spec.name}: it is not here yet and the catalog does not know it; "
        "isthmus models RUN --prepare makes it ready"
    )


def models_of(run: RunFile, texts: Texts, here: Mapping[str, Path | None]) -> list[Model]:
    """The models of a run as far as they are known; `here` are the checkpoints on this machine."""
    words, models = words_compared(run, texts), []
    for spec in run.models:
        try:
            known = known_blueprint(spec, here[spec.name])
        except ModelError:
            models.append(Model(spec, None, None))
            continue
        models.append(Model(spec, known, host(spec.name, known, spec.dtype, words, run.lora)))
    return models


def place(run: RunFile, models: Sequence[Model], nodes: Sequence[Node]) -> Placed:
    """How the models are held, and the waves in which they are loaded the fewest times.

    Raises:
        InsufficientResources: the GPUs cannot hold one of them, nor can their nodes' memory.
    """
    holdings = {model.spec.name: hold(run, model, nodes) for model in models}
    requests = {name: holding.request for name, holding in holdings.items()}
    gpus, cpus = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
    machines = f"{gpus:g} GPU" if gpus else f"{cpus:g} CPU"
    return Placed(holdings, in_waves(requests, nodes), machines)


# --- one model


def hold(run: RunFile, model: Model, nodes: Sequence[Node]) -> Holding:
    """How one model is held on these machines, on as few GPUs as do where there are any.

    Raises:
        InsufficientResources: their memory is too small, on the GPUs and beside them.
    """
    name, cluster = model.spec.name, run.cluster
    if cluster.gpus_per_model == 0 or not (cluster.gpus_per_model or any(n.gpus for n in nodes)):
        return _on_cores(run, model)
    most = max((int(node.gpus) for node in nodes), default=0)
    share = cluster.gpus_per_model or 1.0
    if name not in cluster.ranks and share < 1:
        if short := _short(run, model, 1, nodes, share):
            raise InsufficientResources(f"{short}: a larger cluster.gpus_per_model is needed")
        return _holding(run, model, "whole", 1, share, "")
    wanted = cluster.ranks.get(name) or int(cluster.gpus_per_model or 0)
    tried = [wanted] if wanted else [n for n in spreads(most) if n == 1 or _divides(model, n)]
    enough = next((gpus for gpus in tried if _short(run, model, gpus, nodes) is None), None)
    if enough is not None:
        held = "whole" if enough == 1 else "sharded"
        return _holding(run, model, held, enough, 1, _idle(model, enough))
    short = _short(run, model, tried[-1], nodes)
    reason = f"{short}: by ZeRO-Inference (stage 3, weights in host memory), many times slower"
    held = _holding(run, model, "offloaded", wanted or spreads(most)[-1], 1, reason)
    if not any(held.request.fits(node) for node in beside_folders(nodes)):
        nearest = held.request.nearest(beside_folders(nodes))
        raise InsufficientResources(
            f"{short}, and to pass its weights through from host memory {held.request}: the "
            f"largest node lacks {held.request.lacks(nearest)}"
        )
    return held


def _on_cores(run: RunFile, model: Model) -> Holding:
    ranks = run.cluster.ranks.get(model.spec.name, 1)
    held = "whole" if ranks == 1 else "sharded"
    return _holding(run, model, held, ranks, 0, _idle(model, ranks))


def _holding(
    run: RunFile, model: Model, held: Held, ranks: int, num_gpus: float, reason: str
) -> Holding:
    memory = _host_memory(model, held, ranks, num_gpus)
    cpus = run.cluster.cpus_per_model
    return Holding(model.spec.name, held, ranks, cpus, num_gpus, memory, reason)


def _host_memory(model: Model, held: Held, ranks: int, num_gpus: float) -> int | None:
    """Bytes of each rank; None where GPUs hold the model: its host then needs little."""
    if model.blueprint is None or model.process is None:
        return None
    parts = dict(model.process.parts)
    if held == "sharded":
        parts["weights"] = weights_per_gpu(model.blueprint, ranks) * BYTES[model.spec.dtype]
    if held == "offloaded":
        parts["weights"] = ceil(parts["weights"] / ranks)
    elif num_gpus:
        return None
    return sum(parts.values())


def spreads(most: int) -> list[int]:
    """The numbers of GPUs that a model is spread over: 1, 2, 4 and so on, up to `most`."""
    return [2**power for power in range(max(1, most).bit_length())]


def _divides(model: Model, ranks: int) -> bool:
    """Whether a model can lie over so many ranks, each with a query head at the least."""
    if model.blueprint is None:
        return True
    known = ARCHITECTURES.get(model.blueprint.family)
    return known is not None and known.shardable and ranks <= model.blueprint.heads


def _short(
    run: RunFile, model: Model, gpus: int, nodes: Sequence[Node], share: float = 1.0
) -> str | None:
    """Why a model does not fit on so many GPUs of one node, on a share of each; None where it does.

    It must fit on every node on which Ray may put it: nobody tells Ray one kind of GPU from
    another. GPUs of which nothing is known are taken to be large enough.
    """
    if model.blueprint is None:
        return None
    need = gpu_footprint(run, model.spec, model.blueprint, gpus)
    kinds = {node.accelerator for node in nodes if node.gpus >= gpus and node.accelerator}
    rooms = {kind: gpu_memory_gib(kind) for kind in sorted(kinds)}
    for kind, room in rooms.items():
        if room is not None and need.total + GPU_SPARE > share * room * GIB:
            each = f"each of {gpus} {kind}" if gpus > 1 else f"one {kind}"
            each = each if share == 1 else f"a share of {share:g} of {each}"
            need_gib = f"{need.total / GIB:.1f} + {GPU_SPARE / GIB:g} GiB"
            more = gpus < max(node.gpus for node in nodes) and not _divides(model, 2 * gpus)
            whole = f", and {model.blueprint.family} is not cut further" if more else ""
            return f"{model.spec.name} needs {need_gib} on {each}, which has {room:g}{whole}"
    return None


def gpu_footprint(run: RunFile, spec: ModelSpec, model: Blueprint, gpus: int) -> Footprint:
    """Bytes on each of the GPUs that a model of the run is spread over."""
    rows = run.anchors.batch_texts
    return footprint(model, dtype=spec.dtype, gpus=gpus, tokens=BATCH_TOKENS, rows=rows)


def _idle(model: Model, ranks: int) -> str:
    heads = None if model.blueprint is None else model.blueprint.kv_heads
    if heads is None or ranks <= heads:
        return ""
    return f"more ranks than its {heads} KV heads: some are without attention"


# --- all of them


def beside_folders(nodes: Iterable[Node]) -> list[Node]:
    """The nodes, each with the memory left that the folders claim: they may be on any."""
    return [replace(n, memory_bytes=max(0, n.memory_bytes - FOLDER_MEMORY)) for n in nodes]


def nodes_used(requests: Iterable[Request], nodes: Sequence[Node]) -> int:
    """On how many of the nodes these come to lie, all together."""
    room = _Room(beside_folders(nodes))
    for request in requests:
        room.take(request)
    return room.used


def in_waves(requests: Mapping[str, Request], nodes: Sequence[Node]) -> tuple[Wave, ...]:
    """Waves of which each fits into the cluster, so that models are loaded the fewest times.

    Every model is loaded once to be read and once to be steered, but for those of the last wave,
    which stay: so the last wave has as many models as fit together, the smallest. What no node
    could hold is the first, as only asking tells whether such a node comes.
    """
    nodes = beside_folders(nodes)
    names = sorted(requests, key=lambda name: _size(requests[name], nodes), reverse=True)
    homeless = tuple(n for n in names if not any(requests[n].fits(node) for node in nodes))
    rest = [name for name in names if name not in homeless]
    count = bisect_left(
        range(1, len(rest) + 1),
        True,
        key=lambda count: not _fit(requests, rest[len(rest) - count :], nodes),
    )
    last, rest = tuple(rest[len(rest) - count :]), rest[: len(rest) - count]
    waves: list[Wave] = []
    while rest:
        room = _Room(nodes)
        waves.append(tuple(name for name in rest if room.take(requests[name])))
        rest = [name for name in rest if name not in waves[-1]]
    # What is small in one thing may be large in another: then an earlier wave may hold more.
    longest_last = sorted([*waves, *([last] if last else [])], key=len)
    return (homeless, *longest_last) if homeless else tuple(longest_last)


def _fit(requests: Mapping[str, Request], names: Iterable[str], nodes: Sequence[Node]) -> bool:
    room = _Room(nodes)
    return all(room.take(requests[name]) for name in names)


def _size(request: Request, nodes: Sequence[Node]) -> float:
    """The largest part of the cluster, in anything, that this takes."""
    parts = (
        (request.num_cpus, sum(node.cpus for node in nodes)),
        (request.num_gpus, sum(node.gpus for node in nodes)),
        (request.memory_bytes or 0, sum(node.memory_bytes for node in nodes)),
    )
    return request.ranks * max(asked / there if there else asked for asked, there in parts)


class _Room:
    """What is free on each node, as models are put there: where the least is left, as Ray does."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._free = list(nodes)
        self._taken: set[int] = set()

    @property
    def used(self) -> int:
        """How many nodes hold something."""
        return len(self._taken)

    def take(self, request: Request) -> bool:
        """Put it on a node; whether there was one."""
        fitting = [place for place, node in enumerate(self._free) if request.fits(node)]
        if not fitting:
            return False
        ranks = request.ranks
        left = [
            replace(
                self._free[place],
                # Ray counts in such steps too: tenths must add up.
                cpus=round(self._free[place].cpus - ranks * request.num_cpus, 4),
                gpus=round(self._free[place].gpus - ranks * request.num_gpus, 4),
                memory_bytes=self._free[place].memory_bytes - ranks * (request.memory_bytes or 0),
            )
            for place in fitting
        ]
        best = min(range(len(left)), key=lambda i: (left[i].gpus, left[i].cpus, i))
        self._free[fitting[best]] = left[best]
        self._taken.add(fitting[best])
        return True
