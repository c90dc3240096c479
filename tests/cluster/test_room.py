import threading
import time

import pytest
from ray.util.placement_group import remove_placement_group

from cluster.placement import GIB, InsufficientResources, Request
from cluster.room import SETTLED_SECONDS, make_room

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("local_ray"),
]


def refused(request: Request, timeout: float) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(InsufficientResources) as caught:
        make_room(request, timeout)
    assert "\n" not in str(caught.value)
    return str(caught.value), time.monotonic() - start


def test_room_is_made_for_all_ranks_on_one_node():
    group = make_room(Request("pair", 1, memory_bytes=2**20, ranks=2))
    assert group.bundle_specs == [{"CPU": 1, "memory": 2**20}] * 2
    remove_placement_group(group)


def test_what_no_node_could_hold_is_refused_long_before_the_time_is_up():
    said, seconds = refused(Request("giant", 1, 2, ranks=4), timeout=600)
    assert SETTLED_SECONDS <= seconds < 60
    assert said.startswith(
        "giant asks for 4 x (1 CPU, 2 GPU) on one node; the cluster is 1 node(s) with 3 CPU, 0 GPU"
    )
    assert "its largest node lacks 1 CPU, 8 GPU; a node of type a100-8x (p4d.24xlarge" in said


def test_what_no_node_type_could_hold_either_is_said():
    said, seconds = refused(Request("giant", 1, memory_bytes=3000 * GIB), timeout=2)
    assert seconds < 10
    assert said.endswith(
        "; no node type of ray_cluster.yaml would do: "
        "the largest is h100-8x (p5.48xlarge: 192 CPU, 8 GPU, 2048 GiB)"
    )


def test_what_is_in_use_is_waited_for():
    first = make_room(Request("first", 3))
    said, seconds = refused(Request("second", 2), timeout=2)
    assert 2 <= seconds < 10
    assert said.startswith("second asks for 2 CPU, 0 GPU on one node, and none had that free ")
    assert said.endswith("GiB in all, part of it in use")
    waker = threading.Timer(3, remove_placement_group, [first])
    waker.start()
    second = make_room(Request("second", 2))
    waker.join()
    # What was refused left nothing behind: the rest is free.
    remove_placement_group(make_room(Request("third", 1)))
    remove_placement_group(second)
