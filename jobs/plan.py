"""`isthmus plan`: what a run will load, where, how large, how long and at what price."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

from actors.anchors import AnchorBatch
from actors.blueprint import BYTES, Blueprint
from actors.catalog import ModelSpec
from actors.pool import Holding
from actors.weights import default_cache, prepared
from cluster.node_types import CLUSTER_FILE, ON_DEMAND, NodeType, node_of, node_types
from cluster.placement import InsufficientResources
from cluster.session import session
from jobs.cargos import readings
from jobs.config import RunFile
from jobs.footprint import LOAD_BYTES_PER_SECOND, Footprint, memory_here
from jobs.placing import (
    Model,
    Wave,
    beside_folders,
    gpu_footprint,
    known_blueprint,
    nodes_used,
    place,
)
from jobs.progress import Reporter
from jobs.resident import Process, host_name, processes
from jobs.texts import Texts, gather
from jobs.waves import crew
from jobs.workload import Reading

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
    """A run on one kind of node: how each model is held, in which waves, or why not at all.

    `spread` are the bytes on each GPU of those that are held on GPUs.
    """

    node: NodeType
    holdings: Mapping[str, Holding]
    spread: dict[str, Footprint]
    waves: tuple[Wave, ...]
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
        texts = gather(run)
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
    all_processes = processes(run, texts, blueprints)
    hosts = {process.name: process for process in all_processes}
    return RunPlan(
        run=run,
        models=models,
        processes=all_processes,
        memory=memory_here(),
        cores=os.cpu_count() or 1,
        # A spot node is the same machine, at a price of the hour.
        placements=tuple(
            _placement(node, models, hosts, run)
            for node in node_types(CLUSTER_FILE)
            if node.market == ON_DEMAND
        ),
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
    with session(run.cluster.address) as cluster, crew(run, texts, cluster, reporter) as models:
        for wave in models.waves:
            live = models.live(wave)
            with reporter.stage("probing", len(wave)) as stage:
                for name in wave:
                    live[name].host.call("forward", batch)  # the first pass sets things up
                    start = time.perf_counter()
                    tokens = live[name].host.call("forward", batch)
                    seconds = time.perf_counter() - start
                    flops = Reading("probe", tokens).flops(blueprints[name])
                    speeds[name] = Speed(flops / seconds, probed=True)
                    stage.advance()
    return speeds


def fit_seconds(run: RunFile, models: tuple[ModelPlan, ...]) -> float:
    """Of all maps and control maps, by two folders at once."""
    shuffles = 0 if run.steering is None else run.steering.shuffles
    fits = len(run.maps.roles) * (len(run.maps.fitters) + 1) + shuffles
    cubes = sum(
        source.blueprint.width**3 + target.blueprint.width**3
        for source, target in permutations(models, 2)
    )
    return fits * cubes * FIT_SECONDS_A_CUBE / 2


def _placement(
    node: NodeType, models: tuple[ModelPlan, ...], hosts: Mapping[str, Process], run: RunFile
) -> Placement:
    machine = node_of(node)
    nodes = [machine] * node.most
    known = [Model(each.spec, each.blueprint, hosts[host_name(each.spec.name)]) for each in models]
    try:
        placed = place(run, known, nodes)
    except InsufficientResources as error:
        return Placement(node, {}, {}, (), 0, 0.0, str(error))
    (room,) = beside_folders([machine])
    for holding in placed.holdings.values():
        if lacking := holding.request.lacks(room):
            why_not = f"{holding.request}; a node lacks {lacking}"
            return Placement(node, {}, {}, (), 0, 0.0, why_not)
    by_name = {model.spec.name: model for model in models}
    spread = {
        name: gpu_footprint(run, by_name[name].spec, by_name[name].blueprint, holding.ranks)
        for name, holding in placed.holdings.items()
        if holding.num_gpus and holding.held != "offloaded"
    }
    used = [
        nodes_used([placed.holdings[name].request for name in wave], nodes) for wave in placed.waves
    ]
    seconds = START_SECONDS + sum(
        max(_seconds(node, by_name[name], placed.holdings[name]) for name in wave)
        for wave in placed.waves
    )
    return Placement(node, placed.holdings, spread, placed.waves, max(used), seconds, None)


def _seconds(node: NodeType, model: ModelPlan, holding: Holding) -> float:
    if not holding.num_gpus:
        return model.seconds_here
    load = model.blueprint.parameters * BYTES[model.spec.dtype] / LOAD_BYTES_PER_SECOND
    return load + model.flops / (holding.ranks * node.tflops * 1e12 * GPU_SHARE)
