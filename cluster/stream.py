"""Work in flight: a bounded number of calls, handed back in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from cluster.gang import Ref, fetch, waited

GLANCE = 1.0  # seconds between two looks at what is under way

Item = TypeVar("Item")


def stream(
    items: Iterable[Item],
    submit: Callable[[Item], Ref | list[Ref]],
    in_flight: int,
    meanwhile: Callable[[], None] | None = None,
) -> Generator[tuple[Item, Any], None, None]:
    """Submit every item and yield (item, answer) in the order of the items.

    At most `in_flight` calls are submitted and not yet yielded. `items` is read no further than
    that, so it may be endless. An answer's ref is dropped before the answer is yielded. When a call
    fails, or the caller stops listening, no more are submitted, and those in flight finish unheard:
    Ray cannot take back a call that an actor has been sent. `meanwhile` is called now and then as
    long as an answer is waited for.
    """
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}, and must be at least 1")
    pending: deque[tuple[Item, Ref | list[Ref]]] = deque()

    def oldest() -> tuple[Item, Any]:
        item, ref = pending.popleft()
        while meanwhile is not None and not waited(ref, GLANCE):
            meanwhile()
        return item, fetch(ref)

    for item in items:
        if len(pending) == in_flight:
            yield oldest()
        pending.append((item, submit(item)))
    while pending:
        yield oldest()
