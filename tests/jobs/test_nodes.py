"""A sweep over several nodes leaves the bits of a sweep on one, also when a node is lost."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from cluster.storage import DirectoryStore
from jobs.config import read_run_file
from tests.head import JOINING
from tests.nodes import Nodes, kill
from tests.sweeps import Driver, Result, assert_same, moments

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster whose head has room for both tiny models; tests add nodes to it."""
    with Nodes() as cluster:
        cluster.add(cpus=1)
        yield cluster


@pytest.fixture
def joining(
    tmp_path: Path, tiny_run: Callable[..., Path], undisturbed: Result, nodes: Nodes
) -> Callable[[float], Path]:
    """The undisturbed sweep on the cluster: `joining(cpus_per_model)`."""

    def write(cpus: float) -> Path:
        cluster = {"address": nodes.address, "cpus_per_model": cpus}
        tracking = {"uri": read_run_file(undisturbed.run).tracking_uri}
        return tiny_run(tmp_path / "home", cluster=cluster, tracking=tracking)

    return write


def on(raylet: psutil.Process, title: str) -> bool:
    """Whether a node runs the process of that name, whatever call it is in."""
    for process in raylet.children(recursive=True):
        with suppress(psutil.Error):
            if any(part.startswith(f"ray::{title}") for part in process.cmdline()[:1]):
                return True
    return False


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_sweep_on_several_nodes_leaves_the_bits_of_one(
    count: int,
    nodes: Nodes,
    joining: Callable[[float], Path],
    undisturbed: Result,
    start: Callable[..., Driver],
) -> None:
    while len(nodes.raylets) < count:
        nodes.add(cpus=1)
    # On several nodes a model takes all the cores of one.
    run = joining(0.5 if count == 1 else 1)
    driver = start(run, **JOINING)
    driver.wait_to_hear("reading anchors ...")
    hosts = ("host-tiny-llama", "host-tiny-gemma")
    expected = [2] if count == 1 else [1, 1]

    def apart() -> bool:
        homes = [sum(on(raylet, host) for host in hosts) for raylet in nodes.raylets]
        return sorted(homes, reverse=True)[: len(hosts)] == expected

    driver.wait_for(apart)  # a process is called by its name only while it works
    assert_same(Result.of(run, driver.finish()), undisturbed)


def test_a_node_that_is_lost_in_the_middle_leaves_no_trace(
    nodes: Nodes,
    joining: Callable[[float], Path],
    undisturbed: Result,
    start: Callable[..., Driver],
) -> None:
    while len(nodes.raylets) < 4:
        nodes.add(cpus=1)
    run = joining(1)
    store, expected = DirectoryStore(run.parent / "store"), moments(run)

    def done() -> int:
        return sum(store.has(to) for to in expected)

    driver = start(run, **JOINING)
    driver.wait_for(lambda: done() >= len(expected) // 4)
    # The driver is at home on the head, whose loss nothing survives.
    others = nodes.raylets[1:]
    kill(driver.wait_for(lambda: next((each for each in others if on(each, "host-tiny-")), None)))
    assert done() < len(expected)
    assert_same(Result.of(run, driver.finish()), undisturbed)
