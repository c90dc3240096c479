"""A plain class run in processes of its own: launch them, call them, restart them, stop them."""

import ctypes
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, overload

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.pace import heard
from cluster.placement import Request
from cluster.room import make_room
from cluster.world import Place, World

Ref: TypeAlias = ray.ObjectRef

_GLANCE = 0.5  # seconds after which a watch looks whether there is more to wait for
_TRIM = 10  # seconds between two givings back: what is free is often wanted by the next call
_PACE = "pace"  # calls that are answered while others are under way


class ActorLost(RuntimeError):
    """An actor's process died, and its restarts or the call's retries are used up."""


_LIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _give_back_what_is_free() -> None:
    """To the machine: glibc keeps what threads have freed between what is in use, gigabytes of it
    after passes of many lengths. Other libraries of C have no such call."""
    if _LIBC is not None:
        _LIBC.malloc_trim(0)


class Rank:
    """What runs in a process: it builds the plain body and passes calls on to it.

    The body is built by a call, not in this constructor, because Ray keeps only the text of an
    error raised in an actor's constructor; raised in a call, it reaches the driver as itself. After
    a restart the first call builds the body again from the same arguments.
    """

    def __init__(
        self, body: type, args: Sequence[Any], kwargs: dict[str, Any], rank: int, ranks: int
    ) -> None:
        self._recipe = (body, args, kwargs)
        self._rank, self._ranks = rank, ranks
        self._body: object | None = None
        self._world: World | None = None
        self._broken: str | None = None
        self._pace = 0.0
        self._trimmed = time.monotonic()

    def meet(self, place: Place | None, patience: float) -> Place:
        """Open the place where the ranks of one world meet, or go to it."""
        if place is None:
            host = ray.util.get_node_ip_address()
            self._world = World.found(host, self._ranks, patience)
        else:
            self._world = World.join(place, self._rank, self._ranks, patience)
        return self._world.place

    def build(self) -> None:
        if self._body is None:
            body, args, kwargs = self._recipe
            with self._together():
                if self._ranks > 1:
                    kwargs = kwargs | {"world": self._met()}
                self._body = body(*args, **kwargs)

    def _met(self) -> World:
        if self._world is None:
            raise ConnectionError("no other rank was found")
        return self._world

    def call(self, method: str, *args: Any) -> Any:
        self.build()
        before = self._pace

        def hear(share: float) -> None:
            self._pace = max(self._pace, before + share)

        with self._together(), heard(hear):
            answer = getattr(self._body, method)(*args)
        self._pace = before + 1
        if time.monotonic() - self._trimmed > _TRIM:
            _give_back_what_is_free()
            self._trimmed = time.monotonic()
        # All ranks come to the same answer.
        return answer if self._rank == 0 else None

    def beat(self) -> None:
        """Comes back when all calls before it are done; raises when they broke the world."""
        if self._broken is not None:
            raise ActorLost(self._broken)

    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group=_PACE)
    def pace(self) -> float:
        return self._pace

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What a collective says when another rank is gone or late ends this world for good."""
        self.beat()
        try:
            yield
        except (RuntimeError, ConnectionError) as error:
            if self._ranks == 1:
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            self._broken = f"rank {self._rank} of {self._ranks}: {reason}"
            raise ActorLost(self._broken) from error


class Gang:
    """One plain class, run as an actor, or as several that work as one. Made by `Gang.launch`."""

    def __init__(
        self,
        request: Request,
        recipe: tuple[type, Sequence[Any], dict[str, Any]],
        *,
        restarts: int,
        retries: int,
        threads: int,
        patience: float,
        timeout: float,
    ) -> None:
        self.name = request.name
        self._request, self._recipe, self._threads = request, recipe, threads
        self._restarts, self._retries = restarts, retries
        self._patience, self._timeout = patience, timeout
        self._start()

    @classmethod
    def launch(
        cls,
        body: type,
        *args: Any,
        name: str,
        ranks: int = 1,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory_bytes: int | None = None,
        restarts: int = 0,
        retries: int = 0,
        threads: int = 1,
        patience: float = 600,
        timeout: float = 60,
        **kwargs: Any,
    ) -> "Gang":
        """Start `body(*args, **kwargs)` in a process of its own, as soon as there is room for it.

        `body` must be importable from the shipped code. `memory_bytes` is reserved, not enforced.
        A process that dies is started again up to `restarts` times (-1: always) and the call it was
        in is made again up to `retries` times (-1: always); what it held in memory is lost.
        `threads` caps the threads of its mathematics (OMP_NUM_THREADS).

        With several `ranks`, each is such a process, with as much as is asked for one, and gets
        `world` besides; every call goes to all of them, and the answer is that of the first. When
        one of them dies, or none of them comes to the end of a call within `patience` seconds, all
        are ended and the calls in flight are lost; `ready` starts them anew, `restarts` times.

        Returns once the place is found; the constructor runs on, and what it raises comes out of
        `ready` and of every call. Raises InsufficientResources where no place is found in `timeout`
        seconds.
        """
        return cls(
            Request(name, num_cpus, num_gpus, memory_bytes, ranks),
            (body, args, kwargs),
            restarts=restarts,
            retries=retries,
            threads=threads,
            patience=patience,
            timeout=timeout,
        )

    def _start(self) -> None:
        request = self._request
        self._group = make_room(request, self._timeout)
        alone = request.ranks == 1
        self._ranks: list[Any] = [
            ray.remote(concurrency_groups={_PACE: 1})(Rank)  # pyrefly: ignore[unexpected-keyword]
            .options(
                # The name is only there for Ray's messages; it must be new in the whole cluster.
                name=f"{self.name} {uuid.uuid4().hex[:8]}",
                num_cpus=request.num_cpus,
                num_gpus=request.num_gpus,
                memory=request.memory_bytes,
                # One rank of several has nobody to come back to: all are started anew.
                max_restarts=self._restarts if alone else 0,
                max_task_retries=self._retries if alone else 0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, placement_group_bundle_index=rank
                ),
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self._threads)}},
            )
            .remote(*self._recipe, rank, request.ranks)
            for rank in range(request.ranks)
        ]
        self._watch: Watch | None = None
        if not alone:
            self._watch = Watch(self.name, self._ranks, self._patience)
            place = self._ranks[0].meet.remote(None, self._patience)
            for rank in self._ranks[1:]:
                rank.meet.remote(place, self._patience)
        self._build()

    def ready(self, timeout: float | None = None) -> None:
        """Wait until the body is built, also in a process that is being started again.

        Where one of several ranks was lost, all are started anew first. Raises what the body's
        constructor raised, or ActorLost when no restart is left.
        """
        while True:
            try:
                fetch(self._build(), timeout)
                return
            except ActorLost:
                if self._watch is None:
                    raise
            self._watch.over.wait()
            if self._restarts == 0:
                raise ActorLost(f"{self.name} was lost: {self._watch.lost}")
            self._restarts -= 1
            self.stop()
            self._start()

    def _build(self) -> list[Ref]:
        # Building twice is building once, so this call may wait for as many restarts as there are.
        waits = -1 if self._watch is None else 0
        refs = [
            rank.build.options(name=f"{self.name}.build", max_task_retries=waits).remote()
            for rank in self._ranks
        ]
        self._watched(building=True)
        return refs

    def submit(self, method: str, *args: Any) -> Ref:
        """Begin a call and return at once. Refs among `args` are fetched by the process itself."""
        refs = [
            rank.call.options(name=f"{self.name}.{method}").remote(method, *args)
            for rank in self._ranks
        ]
        self._watched(building=False)
        return refs[0]

    def _watched(self, building: bool) -> None:
        if self._watch is not None:
            self._watch.add([rank.beat.remote() for rank in self._ranks], building)

    def call(self, method: str, *args: Any) -> Any:
        """Call and wait for the answer. Raises what the body raised, or ActorLost."""
        return fetch(self.submit(method, *args))

    def pace(self) -> float | None:
        """How many calls it has answered since its process began, and what share of the next one;
        None where nobody says."""
        try:
            return fetch(self._ranks[0].pace.remote(), _GLANCE)
        except (ActorLost, TimeoutError):
            return None

    def pids(self) -> list[int]:
        """The numbers of the processes, on their node, by rank."""
        return fetch([rank.pid.remote() for rank in self._ranks])

    def stop(self) -> None:
        """End the processes now, whatever they are doing, and give their places back.

        A process that is lost keeps its place until then.
        """
        if self._watch is not None:
            self._watch.end()
        for rank in self._ranks:
            ray.kill(rank)
        remove_placement_group(self._group)


class Watch:
    """Ends all ranks of a gang when one of them is lost, or when none of them gets on.

    `lost` says why, once `over` is set.
    """

    def __init__(self, name: str, ranks: Sequence[Any], patience: float) -> None:
        self._ranks, self._patience = ranks, patience
        self._open: list[tuple[Ref, bool]] = []
        self._changed = threading.Condition()
        self._ended = False
        self.lost: str | None = None
        self.over = threading.Event()
        threading.Thread(target=self._run, name=f"watch-{name}", daemon=True).start()

    def add(self, beats: Sequence[Ref], building: bool) -> None:
        """Wait for these too. To build a body may take as long as it will."""
        with self._changed:
            self._open += [(beat, building) for beat in beats]
            self._changed.notify()

    def end(self) -> None:
        """Watch no longer."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            with self._changed:
                if not self._open and not self._ended:
                    self._changed.wait()
                    last = time.monotonic()
                if self._ended:
                    return
                waiting = list(self._open)
            done, _ = ray.wait([beat for beat, _ in waiting], timeout=_GLANCE, fetch_local=False)
            building = any(slow for _, slow in waiting)
            try:
                ray.get(done)
            except RayError as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                self._end_all(_line(cause))
                return
            if done or building:
                last = time.monotonic()
            with self._changed:
                self._open = [each for each in self._open if each[0] not in done]
            if time.monotonic() - last > self._patience:
                self._end_all(f"no rank got on within {self._patience:g} s")
                return

    def _end_all(self, reason: str) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        self.lost = reason
        self.over.set()


def _line(error: BaseException) -> str:
    """One line of what Ray says at length."""
    return " ".join(str(error).split()).partition(" Some common causes include")[0]


def share(value: object) -> Ref:
    """Lay something down once, for many calls to take up."""
    return ray.put(value)


def waited(ref: Ref | list[Ref], seconds: float) -> bool:
    """Whether the answer, or all of them, came within so many seconds."""
    refs = ref if isinstance(ref, list) else [ref]
    _, open_ = ray.wait(refs, num_returns=len(refs), timeout=seconds, fetch_local=False)
    return not open_


@overload
def fetch(ref: Ref, timeout: float | None = None) -> Any: ...
@overload
def fetch(ref: list[Ref], timeout: float | None = None) -> list[Any]: ...
def fetch(ref: Ref | list[Ref], timeout: float | None = None) -> Any:
    """The answer of one call, or of each in a list. Large arrays come read-only and uncopied.

    Raises what the body raised, as itself (its `__cause__` holds the remote traceback); ActorLost
    when a process died; TimeoutError after `timeout` seconds.
    """
    try:
        return ray.get(ref, timeout=timeout)
    except GetTimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    except RayError as error:
        # An error of an argument comes wrapped once more by the call that wanted the argument.
        cause: BaseException = error
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        if isinstance(cause, RayError):
            raise ActorLost(f"an actor was lost: {_line(cause)}") from error
        raise cause from error
