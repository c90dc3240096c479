"""What is tried again when a process dies at it."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from actors.exchange import ShardLost
from cluster.gang import ActorLost

Todo = TypeVar("Todo")


class Worker(Protocol):
    """What can be waited for after a loss."""

    def ready(self) -> None:
        """Wait until every process is there again. Raises ActorLost where one stays away."""


def persist(
    todo: Todo,
    attempt: Callable[[Todo], None],
    undone: Callable[[], Todo],
    restarts: int,
    workers: Iterable[Worker],
    lost: Callable[[], None],
) -> None:
    """Attempt `todo`, and where a process is lost what is `undone` then, `restarts` times.

    `lost` is told each time. Raises ActorLost, or ShardLost, of the last attempt.
    """
    workers = tuple(workers)
    for left in range(restarts, -1, -1):
        try:
            return attempt(todo)
        except (ActorLost, ShardLost):
            if not left:
                raise
            lost()
            # Until a process is there again, each of its calls would be one more loss.
            for worker in workers:
                worker.ready()
            todo = undone()
    return None
