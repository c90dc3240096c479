"""How far a long call has come: said where the work is done, heard by whoever made the call."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Hear = Callable[[float], None]

_hear: ContextVar[Hear] = ContextVar("hear", default=lambda _: None)


@contextmanager
def heard(by: Hear) -> Iterator[None]:
    """In here, `by` is told what share of the work is done, from 0 to 1."""
    outer = _hear.get()
    _hear.set(by)
    try:
        yield
    finally:
        _hear.set(outer)  # not by its token: a generator may be closed in another context


@contextmanager
def part(start: float, end: float) -> Iterator[None]:
    """What is done in here is this part of the work; `part(0, 0)` is too short to count."""
    outer = _hear.get()
    with heard(lambda share: outer(start + (end - start) * share)):
        yield
    outer(end)


def paced(items: Sequence[Item]) -> Iterator[Item]:
    """Each item in turn; they are equal parts of the work."""
    for number, item in enumerate(items):
        with part(number / len(items), (number + 1) / len(items)):
            yield item
