"""`isthmus plan`: what a run will load, where, how large, how long and at what price."""

import os
import time
from dataclasses import dataclass
from itertools import permutations
from math import ceil
from pathlib import Path

from actors.anchors import AnchorBatch
from actors.blueprint import BYTES, Blueprint, blueprint
from actors.catalog import ModelError, ModelSpec
from actors.checkpoints import read_json
from actors.fleet import find, fleet
from actors.weights import default_cache, prepared
from cluster.node_types import NodeType, node_types
from cluster.placement import GIB
from cluster.session import session
from evaluation.suites import SUITES
from jobs.config import ROOT, RunFile
from jobs.footprint import LOAD_BYTES_PER_SECOND, Footprint, fewest_gpus, footprint
from jobs.progress import Reporter
from jobs.resident import Process, processes
from jobs.sweep import live_models
from jobs.texts import Texts, gather
from jobs.workload import Reading, readings

CLUSTER_FILE = ROOT / "ray_cluster.yaml"
BATCH_TOKENS = 256  # of an anchor text, at the most
# Assumed where nothing was probed: of a core in float32, and the share of a GPU's peak that is had.
CORE_FLOPS = 50e9
GPU_SHARE = 0.3
START_SECONDS = 30.0
# Measured on one core of the machine in benchmarks/results, widths 576 and 640.
FIT_SECONDS_A_CUBE = 1.0 / (576**3 + 640**3)


@dataclass(frozen=True)
class Speed:
    """Floating-point operations a second of one model on this machine, probed or assumed."""

    flops: float
    probed: bool


@dataclass(frozen=True)
class ModelPlan:
    """One model of a run: what it is, what it reads, and how fast that goes here."""

    spec: ModelSpec
    blueprint: Blueprint
    here: bool
    readings: tuple[Reading, ...]
    speed: Speed

    @property
    def flops(self) -> float:
        return sum(reading.flops(self.blueprint) for reading in self.readings)

    @property
    def tokens(self) -> float:
        return sum(reading.tokens for reading in self.readings)

    @property
    def seconds_here(self) -> float:
        return self.flops / self.speed.flops


@dataclass(frozen=True)
class Placement:
    """A run on one kind of node: GPUs a model, or why it does not fit there."""

    node: NodeType
    spread: dict[str, Footprint]
    nodes: int
    seconds: float
    why_not: str | None

    @property
    def usd(self) -> float:
        return self.nodes * self.seconds / 3600 * self.node.usd_per_hour


@dataclass(frozen=True)
class RunPlan:
    """Everything known of a run before it starts; estimates unless probed."""

    run: RunFile
    models: tuple[ModelPlan, ...]
    processes: tuple[Process, ...]
    memory: int
    cores: int
    placements: tuple[Placement, ...]

    @property
    def peak(self) -> int:
        """Bytes of all processes here at once, were each at its peak."""
        return sum(process.total for process in self.processes)

    @property
    def seconds_here(self) -> float:
        """Models work side by side, as far as there are cores for them; then maps are fitted."""
        slots = max(1, self.cores // self.run.cluster.threads_per_model)
        each = [model.seconds_here for model in self.models]
        return START_SECONDS + max(*each, sum(each) / slots) + fit_seconds(self.run, self.models)


def plan(run: RunFile, probe: bool, reporter: Reporter) -> RunPlan:
    """Work out what a run needs. With `probe`, each model is loaded here and timed on one batch.

    Raises:
        ModelError: nothing is known of a model without fetching it.
        CorpusError, AnchorError: the texts of the run cannot be read, or are too few.
        NodeTypeError: ray_cluster.yaml names a machine that nothing is known of.
    """
    with reporter.stage("reading texts"):
        texts = gather(run, SUITES[run.steering.suite])
    # Asked once: to find a GGUF's checkpoint, the whole file is hashed.
    here = {spec.name: prepared(spec, default_cache()) for spec in run.models}
    blueprints = {spec.name: known_blueprint(spec, here[spec.name]) for spec in run.models}
    speeds = _probed(run, texts, blueprints, reporter) if probe else _assumed(run)
    each_reads = readings(run, texts, others=len(run.models) - 1)
    models = tuple(
        ModelPlan(
            spec=spec,
            blueprint=blueprints[spec.name],
            here=probe or here[spec.name] is not None,
            readings=each_reads,
            speed=speeds[spec.name],
        )
        for spec in run.models
    )
    return RunPlan(
        run=run,
        models=models,
        processes=processes(run, texts, blueprints),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cores=os.cpu_count() or 1,
        placements=tuple(_placement(node, models, run) for node in node_types(CLUSTER_FILE)),
    )


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


def _assumed(run: RunFile) -> dict[str, Speed]:
    flops = CORE_FLOPS * run.cluster.threads_per_model
    return {spec.name: Speed(flops, probed=False) for spec in run.models}


def _probed(
    run: RunFile, texts: Texts, blueprints: dict[str, Blueprint], reporter: Reporter
) -> dict[str, Speed]:
    """Each model in a host of its own, as in a sweep, timed on one batch of anchors."""
    batch = AnchorBatch(0, 0, tuple(texts.anchors[: run.anchors.batch_texts]))
    speeds = {}
    with (
        reporter.stage("probing", len(run.models)) as stage,
        session(run.cluster.address),
        live_models(run) as live,
    ):
        for name, model in live.items():
            model.host.call("forward", batch)  # the first pass sets things up
            start = time.perf_counter()
            tokens = model.host.call("forward", batch)
            seconds = time.perf_counter() - start
            flops = Reading("probe", tokens).flops(blueprints[name])
            speeds[name] = Speed(flops / seconds, probed=True)
            stage.advance()
    return speeds


def fit_seconds(run: RunFile, models: tuple[ModelPlan, ...]) -> float:
    """Of all maps and control maps, by two folders at once."""
    fits = len(run.maps.roles) * (len(run.maps.fitters) + 1) + run.steering.shuffles
    cubes = sum(
        source.blueprint.width**3 + target.blueprint.width**3
        for source, target in permutations(models, 2)
    )
    return fits * cubes * FIT_SECONDS_A_CUBE / 2


def _placement(node: NodeType, models: tuple[ModelPlan, ...], run: RunFile) -> Placement:
    if node.gpus == 0:
        return _on_cores(node, models, run)
    spread: dict[str, Footprint] = {}
    for model in models:
        shape = {"dtype": model.spec.dtype, "tokens": BATCH_TOKENS, "rows": run.anchors.batch_texts}
        gpus = fewest_gpus(model.blueprint, node.gpu_memory_gib * GIB, most=node.gpus, **shape)
        whole = footprint(model.blueprint, gpus=gpus or node.gpus, **shape)
        if gpus is None:
            each = f"each of {node.gpus}" if node.gpus > 1 else "one"
            need = f"{whole.total / GIB:.1f} GiB on {each} {node.gpu}"
            return Placement(
                node,
                {},
                0,
                0.0,
                f"{model.spec.name} needs {need}, which has {node.gpu_memory_gib:g}",
            )
        spread[model.spec.name] = whole
    nodes = _packed([each.gpus for each in spread.values()], node.gpus)
    seconds = START_SECONDS + max(
        model.blueprint.parameters * BYTES[model.spec.dtype] / LOAD_BYTES_PER_SECOND
        + model.flops / (spread[model.spec.name].gpus * node.tflops * 1e12 * GPU_SHARE)
        for model in models
    )
    return Placement(node, spread, nodes, seconds, _too_many(nodes, node))


def _on_cores(node: NodeType, models: tuple[ModelPlan, ...], run: RunFile) -> Placement:
    room = node.memory_gib * GIB
    largest = max(models, key=lambda model: model.blueprint.parameters)
    needed = largest.blueprint.parameters * BYTES[largest.spec.dtype]
    if needed > room:
        weighs = f"{largest.spec.name} weighs {needed / GIB:.1f} GiB"
        return Placement(node, {}, 0, 0.0, f"{weighs}, and a node has {node.memory_gib:g}")
    nodes = ceil(len(models) * run.cluster.cpus_per_model / node.cpus)
    seconds = START_SECONDS + max(model.seconds_here for model in models)
    return Placement(node, {}, nodes, seconds, _too_many(nodes, node))


def _packed(wanted: list[int], room: int) -> int:
    """Nodes of `room` GPUs, each model whole on one: first fit, the largest first."""
    free: list[int] = []
    for gpus in sorted(wanted, reverse=True):
        place = next((at for at, left in enumerate(free) if left >= gpus), None)
        if place is None:
            free.append(room - gpus)
        else:
            free[place] -= gpus
    return len(free)


def _too_many(nodes: int, node: NodeType) -> str | None:
    if nodes <= node.most:
        return None
    return f"{nodes} nodes are needed at once, and the cluster may have {node.most}"
