"""A plain class run in a process of its own: launch it, call it, restart it, stop it."""

import os
import uuid
from collections.abc import Sequence
from typing import Any, TypeAlias, overload

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.placement import InsufficientResources, Request
from cluster.session import facts

Ref: TypeAlias = ray.ObjectRef


class ActorLost(RuntimeError):
    """An actor's process died, and its restarts or the call's retries are used up."""


class Rank:
    """What runs in the process: it builds the plain body and passes calls on to it.

    The body is built by a call, not in this constructor, because Ray keeps only the text of an
    error raised in an actor's constructor; raised in a call, it reaches the driver as itself. After
    a restart the first call builds the body again from the same arguments.
    """

    def __init__(self, body: type, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._recipe = (body, args, kwargs)
        self._body: object | None = None

    def build(self) -> None:
        if self._body is None:
            body, args, kwargs = self._recipe
            self._body = body(*args, **kwargs)

    def call(self, method: str, *args: Any) -> Any:
        self.build()
        return getattr(self._body, method)(*args)

    def pid(self) -> int:
        return os.getpid()


class Gang:
    """One plain class, run as an actor. Made by `Gang.launch`."""

    def __init__(self, name: str, rank: Any, group: PlacementGroup) -> None:
        self.name = name
        self._rank = rank
        self._group = group
        self._built = self._build()

    @classmethod
    def launch(
        cls,
        body: type,
        *args: Any,
        name: str,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory_bytes: int | None = None,
        restarts: int = 0,
        retries: int = 0,
        threads: int = 1,
        timeout: float = 60,
        **kwargs: Any,
    ) -> "Gang":
        """Start `body(*args, **kwargs)` in a process of its own, as soon as there is room for it.

        `body` must be importable from the shipped code. `memory_bytes` is reserved, not enforced.
        A process that dies is started again up to `restarts` times (-1: always) and the call it was
        in is made again up to `retries` times (-1: always); what it held in memory is lost.
        `threads` caps the threads of its mathematics (OMP_NUM_THREADS).

        Returns once the place is found; the constructor runs on, and what it raises comes out of
        `ready` and of every call. Raises InsufficientResources where no place is found in `timeout`
        seconds.
        """
        request = Request(name, num_cpus, num_gpus, memory_bytes)
        group = placement_group([request.bundle()], strategy="STRICT_PACK", name=name)
        if not group.wait(timeout):
            remove_placement_group(group)
            raise InsufficientResources(
                f"{request}, and no node had that free within {timeout:g} s; "
                f"the cluster is {facts()}, part of it in use or too small"
            )
        actor = ray.remote(Rank).options(
            # The name is only there for Ray's messages; it must be new in the whole cluster.
            name=f"{name} {uuid.uuid4().hex[:8]}",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory_bytes,
            max_restarts=restarts,
            max_task_retries=retries,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group),
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads)}},
        )
        return cls(name, actor.remote(body, args, kwargs), group)

    def ready(self, timeout: float | None = None) -> None:
        """Wait until the body is built, also in a process that is being started again.

        Raises what the body's constructor raised, or ActorLost when no restart is left.
        """
        fetch(self._build(), timeout)

    def _build(self) -> Ref:
        # Building twice is building once, so this call may wait for as many restarts as there are.
        return self._rank.build.options(name=f"{self.name}.build", max_task_retries=-1).remote()

    def submit(self, method: str, *args: Any) -> Ref:
        """Begin a call and return at once. Refs among `args` are fetched by the process itself."""
        return self._rank.call.options(name=f"{self.name}.{method}").remote(method, *args)

    def call(self, method: str, *args: Any) -> Any:
        """Call and wait for the answer. Raises what the body raised, or ActorLost."""
        return fetch(self.submit(method, *args))

    def pid(self) -> int:
        """The number of the process, on its node."""
        return fetch(self._rank.pid.remote())

    def stop(self) -> None:
        """End the process now, whatever it is doing, and give its place back.

        A process that is lost keeps its place until then.
        """
        ray.kill(self._rank)
        remove_placement_group(self._group)


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
            # Ray goes on about common causes at length.
            reason = " ".join(str(cause).split()).partition(" Some common causes include")[0]
            raise ActorLost(f"an actor was lost: {reason}") from error
        raise cause from error
