"""What is tried again when a process dies at it."""

from collections.abc import Callable, Iterable
from typing import Protocol

from actors.folder import ShardLost
from cluster.gang import ActorLost


class Worker(Protocol):
    """What can be waited for after a loss."""

    def ready(self) -> None:
        """Wait until every process is there again. Raises ActorLost where one stays away."""


def persist(
    attempt: Callable[[], None],
    restarts: int,
    workers: Iterable[Worker],
    lost: Callable[[], None],
) -> None:
    """Make an attempt, and `restarts` more where a process is lost; `lost` is told each time.

    An attempt does what is not done yet. Raises ActorLost, or ShardLost, of the last one.
    """
    workers = tuple(workers)
    for left in range(restarts, -1, -1):
        try:
            return attempt()
        except (ActorLost, ShardLost):
            if not left:
                raise
            lost()
            # Until a process is there again, each of its calls would be one more loss.
            for worker in workers:
                worker.ready()
    return None
