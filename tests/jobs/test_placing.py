"""How models are held, and in which waves: arithmetic, and laws over any cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.catalog import ModelSpec
from actors.fleet import find
from cluster.node_types import CLUSTER_FILE
from cluster.placement import GIB, InsufficientResources, Node, Request
from jobs.config import Cluster, RunFile, read_run_file
from jobs.placing import (
    FOLDER_MEMORY,
    GPU_SPARE,
    Model,
    beside_folders,
    gpu_footprint,
    hold,
    in_waves,
    place,
)
from jobs.resident import host
from jobs.waves import may_come

CORES = Node(8, 0, 64 * GIB)
A10G = Node(4, 1, 16 * GIB, "A10G")
FOUR_A10G = Node(48, 4, 134 * GIB, "A10G")
EIGHT_A100 = Node(96, 8, 800 * GIB, "A100")
Runs = Callable[..., RunFile]


def model(name: str, dtype: str = "bfloat16") -> Model:
    entry = find(name)
    spec = ModelSpec.model_validate({"name": entry.name, "hub": entry.hub, "dtype": dtype})
    return Model(spec, entry.blueprint, host(entry.name, entry.blueprint, dtype, words=2000))


@pytest.fixture
def runs(tmp_path: Path, tiny_run: Callable[..., Path]) -> Runs:
    """A run of models of the catalog (or of the tiny ones), with settings of its cluster."""

    def write(names: tuple[str, ...], **cluster: Any) -> RunFile:
        run = read_run_file(tiny_run(tmp_path))
        models = tuple(model(name).spec for name in names) or run.models
        return run.model_copy(update={"models": models, "cluster": Cluster(**cluster)})

    return write


@pytest.fixture
def run(runs: Runs) -> RunFile:
    return runs(("llama-3-8b", "llama-3-70b"))


def test_without_gpus_a_model_is_whole_on_cores(run: RunFile) -> None:
    known = model("llama-3-8b")
    held = hold(run, known, [CORES])
    assert known.process is not None
    assert (held.held, held.ranks, held.num_gpus) == ("whole", 1, 0)
    assert held.memory_bytes == known.process.total
    assert held.num_cpus == run.cluster.cpus_per_model


def test_on_gpus_a_model_is_spread_over_as_few_as_hold_it(run: RunFile) -> None:
    small, large = model("llama-3-8b"), model("llama-3-70b")
    assert (hold(run, small, [A10G]).held, hold(run, small, [A10G]).ranks) == ("whole", 1)
    held = hold(run, large, [EIGHT_A100])
    assert (held.held, held.ranks, held.num_gpus) == ("sharded", 4, 1)
    for gpus, fits in ((2, False), (4, True)):
        assert large.blueprint is not None
        need = gpu_footprint(run, large.spec, large.blueprint, gpus).total + GPU_SPARE
        assert (need <= 39.5 * GIB) == fits


def test_a_model_fits_on_every_node_on_which_it_may_be_put(run: RunFile) -> None:
    # 24.2 GiB: one A100 would do, but an A10G may be what Ray takes; two are on one node only.
    held = hold(run, model("llama-2-13b"), [A10G, EIGHT_A100])
    assert (held.held, held.ranks) == ("sharded", 2)
    assert hold(run, model("llama-2-13b"), [EIGHT_A100]).ranks == 1


def test_a_family_that_cannot_be_cut_is_whole_or_passed_through(run: RunFile) -> None:
    assert hold(run, model("phi-3-medium"), [EIGHT_A100]).held == "whole"
    held = hold(run, model("phi-3-medium"), [FOUR_A10G])
    assert (held.held, held.ranks) == ("offloaded", 4)
    assert "on one A10G, which has 22, and phi3 is not cut further" in held.reason


def test_what_no_gpus_hold_is_passed_through_them_from_host_memory(run: RunFile) -> None:
    large = model("llama-3-70b")
    roomy = Node(48, 4, 300 * GIB, "A10G")
    held = hold(run, large, [roomy])
    assert (held.held, held.ranks) == ("offloaded", 4)
    assert "llama-3-70b needs 3" in held.reason
    assert "on each of 4 A10G, which has 22" in held.reason
    assert "ZeRO-Inference (stage 3, weights in host memory), many times slower" in held.reason
    assert held.memory_bytes is not None
    assert large.process is not None
    assert held.ranks * held.memory_bytes > large.process.parts["weights"]

    with pytest.raises(InsufficientResources) as caught:
        hold(run, large, [FOUR_A10G])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("llama-3-70b needs 3")
    assert "host-llama-3-70b asks for 4 x (" in line
    assert "the largest node lacks " in line


def test_the_run_file_may_say_how_many_ranks(runs: Runs) -> None:
    names = ("llama-3-8b", "mistral-7b")
    run = runs(names, ranks={"llama-3-8b": 2})
    whole = hold(run, model("llama-3-8b"), [CORES]).memory_bytes
    sharded = hold(run, model("llama-3-8b"), [CORES])
    assert (sharded.held, sharded.ranks, sharded.num_gpus) == ("sharded", 2, 0)
    alone = hold(runs(names), model("llama-3-8b"), [CORES]).memory_bytes
    assert whole is not None
    assert alone is not None
    assert alone / 2 < whole < alone
    assert hold(run, model("mistral-7b"), [CORES]).held == "whole"
    assert hold(run, model("llama-3-8b"), [EIGHT_A100]).ranks == 2
    assert hold(runs(names, gpus_per_model=4), model("mistral-7b"), [EIGHT_A100]).ranks == 4
    assert hold(runs(names, gpus_per_model=0), model("mistral-7b"), [EIGHT_A100]).num_gpus == 0


def test_small_models_may_share_a_gpu(runs: Runs) -> None:
    names = ("gemma-3-270m", "smollm2-135m-instruct")
    run = runs((*names, "yi-6b"), gpus_per_model=0.25)
    placed = place(run, [model(name) for name in names], [A10G])
    assert placed.waves == (("gemma-3-270m", "smollm2-135m-instruct"),)
    assert placed.lines == [
        "gemma-3-270m: whole, 1 CPU, 0.25 GPU",
        "smollm2-135m-instruct: whole, 1 CPU, 0.25 GPU",
    ]
    with pytest.raises(InsufficientResources) as caught:
        hold(run, model("yi-6b"), [A10G])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("yi-6b needs 1")
    assert "GiB on a share of 0.25 of one A10G, which has 22: " in line
    assert line.endswith("a larger cluster.gpus_per_model is needed")
    with pytest.raises(ValidationError, match="a share of one GPU, or on several whole ones"):
        runs(names, gpus_per_model=1.5)


def test_more_ranks_than_heads_are_said_to_idle(runs: Runs) -> None:
    run = runs((), ranks={"tiny-gemma": 4})
    gemma = model("gemma-3-270m")
    renamed = gemma.spec.model_copy(update={"name": "tiny-gemma"})
    held = hold(run, Model(renamed, gemma.blueprint, gemma.process), [CORES])
    assert "more ranks than its 1 KV heads: some are without attention" in str(held)


def test_a_model_of_which_nothing_is_known_gets_one_gpu_or_one_share_of_cores(
    run: RunFile,
) -> None:
    unknown = Model(model("llama-3-70b").spec, None, None)
    for nodes, gpus in (([CORES], 0), ([A10G], 1)):
        held = hold(run, unknown, nodes)
        assert (held.held, held.num_gpus, held.memory_bytes) == ("whole", gpus, None)


def test_where_no_gpu_is_yet_the_run_file_may_ask_for_one(runs: Runs) -> None:
    run = runs(("llama-3-8b", "mistral-7b"), gpus_per_model=1)
    placed = place(run, [model("llama-3-8b"), model("mistral-7b")], [CORES])
    assert [each.num_gpus for each in placed.holdings.values()] == [1, 1]
    assert placed.waves == (("llama-3-8b", "mistral-7b"),)


def test_the_start_of_a_run_says_how_and_how_often_models_are_loaded(runs: Runs) -> None:
    names = ("llama-3-8b", "mistral-7b", "yi-6b")
    run = runs(names)
    placed = place(run, [model(name) for name in names], [A10G])
    assert placed.lines == [
        "llama-3-8b: whole, 1 CPU, 1 GPU",
        "mistral-7b: whole, 1 CPU, 1 GPU",
        "yi-6b: whole, 1 CPU, 1 GPU",
        "3 models on 1 GPU: 3 waves, 5 loads",
    ]
    assert len(place(run, [model(name) for name in names], [FOUR_A10G]).lines) == 3


# --- waves

asked = st.builds(
    Request,
    st.just("host"),
    num_cpus=st.sampled_from([0.1, 0.5, 1, 2]),
    num_gpus=st.sampled_from([0, 1]),
    memory_bytes=st.sampled_from([None, GIB, 5 * GIB]),
    ranks=st.sampled_from([1, 1, 2, 4]),
)
machines = st.lists(
    st.builds(Node, st.sampled_from([2, 4, 16]), st.sampled_from([0, 1, 4]), st.just(20.0 * GIB)),
    min_size=1,
    max_size=3,
)


def total(requests: list[Request], resource: str) -> float:
    return sum(each.ranks * (getattr(each, resource) or 0) for each in requests)


@given(st.lists(asked, min_size=1, max_size=12), machines)
def test_every_model_is_in_one_wave_and_every_wave_fits(
    wanted: list[Request], nodes: list[Node]
) -> None:
    requests = {str(number): each for number, each in enumerate(wanted)}
    waves = in_waves(requests, nodes)
    assert sorted(name for wave in waves for name in wave) == sorted(requests)
    assert all(waves)
    free = beside_folders(nodes)
    homeless = {
        name for name, each in requests.items() if not any(each.fits(node) for node in free)
    }
    if homeless:  # a node for them may come: that is asked first
        assert set(waves[0]) == homeless
    housed = [wave for wave in waves if not homeless.issuperset(wave)]
    for wave in housed:
        of = [requests[name] for name in wave]
        assert total(of, "num_cpus") <= sum(node.cpus for node in free) + 1e-6
        assert total(of, "num_gpus") <= sum(node.gpus for node in free)
        assert total(of, "memory_bytes") <= sum(node.memory_bytes for node in free)
    if housed:
        assert all(len(wave) <= len(housed[-1]) for wave in housed if len(nodes) == 1)


@pytest.mark.parametrize(
    ("count", "gpus", "waves", "loads"), [(3, 1, 3, 5), (4, 2, 2, 6), (5, 8, 1, 5)]
)
def test_models_are_loaded_twice_but_for_the_last_wave(
    runs: Runs, count: int, gpus: int, waves: int, loads: int
) -> None:
    names = ("llama-3-8b", "mistral-7b", "yi-6b", "llama-2-7b", "falcon-7b")[:count]
    node = Node(64, gpus, 100 * GIB, "A100")
    placed = place(runs(names), [model(name) for name in names], [node])
    assert (len(placed.waves), placed.loads) == (waves, loads)


def test_the_last_wave_has_as_many_as_fit_together() -> None:
    node = Node(4, 0, 100 * GIB)
    requests = {name: Request(name, cpus) for name, cpus in zip("abcd", (4, 2, 1, 1), strict=True)}
    assert in_waves(requests, [node]) == (("a",), ("b", "c", "d"))


def test_room_is_left_for_the_folders() -> None:
    requests = {name: Request(name, 1, memory_bytes=3 * GIB) for name in "ab"}
    assert len(in_waves(requests, [Node(4, 0, FOLDER_MEMORY + 6 * GIB)])) == 1
    assert len(in_waves(requests, [Node(4, 0, FOLDER_MEMORY + 5 * GIB)])) == 2


def test_machines_that_may_come_are_counted() -> None:
    nodes = may_come(CLUSTER_FILE)
    assert {node.accelerator for node in nodes} == {None, "A10G", "A100", "H100"}
    assert max(node.gpus for node in nodes) == 8
    assert may_come(None) == []


def test_a_model_is_sharded_over_gpus_that_may_come(runs: Runs) -> None:
    run = runs(("llama-3-8b", "llama-3-70b"))
    models = [model("llama-3-8b"), model("llama-3-70b")]
    placed = place(run, models, [Node(0, 0, 20 * GIB), *may_come(CLUSTER_FILE)])
    held = {name: (each.held, each.ranks) for name, each in placed.holdings.items()}
    assert held == {"llama-3-8b": ("whole", 1), "llama-3-70b": ("sharded", 8)}
    assert len(placed.waves) == 1
