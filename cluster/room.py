"""A place for a gang: all of its processes on one node, or one line on why there is none."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from ray._raylet import GcsClient  # pyrefly: ignore[missing-module-attribute]
from ray.core.generated.autoscaler_pb2 import (
    GetClusterStatusReply,  # pyrefly: ignore[missing-module-attribute]
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.node_types import would_do
from cluster.placement import ClusterFacts, InsufficientResources, Request
from cluster.session import facts

POLL_SECONDS = 1  # Ray waits whole seconds only
# A new autoscaler may not have spoken yet, and one that has speaks every five seconds.
SETTLED_SECONDS = 10
RPC_SECONDS = 10


@dataclass(frozen=True)
class Autoscaler:
    """What Ray's autoscaler (v2) last said of one placement group; nothing on a static cluster.

    It never tells what types of node it has. It `refuses` what it could not place even on all the
    nodes that it may still start. `failures` are the nodes that it could not start: the type, and
    when, in seconds on the head's clock.
    """

    speaks: bool
    refuses: bool
    launching: tuple[str, ...]
    failures: frozenset[tuple[str, int]]


def make_room(request: Request, timeout: float = 60, patience: float = 900) -> PlacementGroup:
    """Set aside what the ranks of `request` ask for, one bundle each, on one node.

    Waits `timeout` seconds for what others use now; on a cluster that grows by itself, `patience`
    seconds for a node to be started or to become free. What no node could hold, and no autoscaler
    can bring, is refused once that is sure, well within a minute.

    Raises:
        InsufficientResources: what is missing, and the node type that would do.
    """
    group = placement_group(request.bundles(), strategy="STRICT_PACK")
    with ExitStack() as undo:
        undo.callback(remove_placement_group, group)
        _wait(group, request, timeout, patience)
        undo.pop_all()
    return group


def _wait(group: PlacementGroup, request: Request, timeout: float, patience: float) -> None:
    start = time.monotonic()
    head = GcsClient(facts().address)
    old = _heard(head, group).failures
    hopeless_since: float | None = None
    while not group.wait(POLL_SECONDS):
        cluster, heard = facts(), _heard(head, group)
        now = time.monotonic()
        hopeless = (
            not any(request.fits(node) for node in cluster.nodes)
            and not heard.launching
            and (heard.refuses or not heard.speaks)
        )
        hopeless_since = (hopeless_since or now) if hopeless else None
        if hopeless_since is not None and now >= min(
            hopeless_since + SETTLED_SECONDS, start + timeout
        ):
            raise InsufficientResources(_never(request, cluster, heard))
        limit = max(timeout, patience) if heard.speaks else timeout
        if now - start >= limit:
            raise InsufficientResources(
                f"{request} on one node, and none had that free within {limit:g} s; "
                f"the cluster is {cluster}{_launches(heard, old)}"
            )


def _heard(head: GcsClient, group: PlacementGroup) -> Autoscaler:
    # The public reader of this answer leaves out what is refused.
    status = GetClusterStatusReply.FromString(head.get_cluster_status(timeout_s=RPC_SECONDS))
    state = status.autoscaling_state
    refused = {gang.details.partition(":")[0] for gang in state.infeasible_gang_resource_requests}
    launching = (*state.pending_instance_requests, *state.pending_instances)
    return Autoscaler(
        speaks=state.autoscaler_state_version > 0,
        refuses=group.id.hex() in refused,
        launching=tuple(sorted(node.ray_node_type_name for node in launching)),
        failures=frozenset(
            (failed.ray_node_type_name, failed.failed_ts)
            for failed in state.failed_instance_requests
        ),
    )


def _never(request: Request, cluster: ClusterFacts, heard: Autoscaler) -> str:
    lacking = request.lacks(request.nearest(cluster.nodes))
    growth = ", and its autoscaler has no larger one to start" if heard.speaks else ""
    return (
        f"{request} on one node; the cluster is {cluster}, its largest node lacks {lacking}"
        f"{growth}{would_do(request)}"
    )


def _launches(heard: Autoscaler, old: frozenset[tuple[str, int]]) -> str:
    if not heard.speaks:
        return ", part of it in use"
    said = f"; still being started: {', '.join(heard.launching)}" if heard.launching else ""
    failed = sorted({node_type for node_type, _ in heard.failures - old})
    if failed:
        # The answer has a field for the reason, which Ray 2.60 leaves empty.
        said += f"; could not be started: {', '.join(failed)} (why is in the head's monitor.log)"
    return said
