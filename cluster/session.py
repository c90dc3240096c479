"""Start a local Ray, or join one, with this project's code shipped to every process of it."""

import importlib.util
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, worker
from ray.exceptions import RayError

from cluster.placement import ClusterFacts, Node, accelerator

ROOMS = ("actors", "alignment", "cluster", "evaluation", "jobs")
# Patterns of the last match: nothing at the root, then the root itself, then the five rooms.
_EXCLUDES = ["/*", "!/.", *(f"!/{room}" for room in ROOMS), "__pycache__"]
_LOGGER = logging.getLogger(__name__)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# A Unix socket's path has at most 107 bytes and Ray adds about 70 of its own: no $TMPDIR here.
_TEMPORARY = "/tmp"


class SessionError(ValueError):
    """Ray cannot be started or joined as asked: one line with the reason and the cure."""


@contextmanager
def session(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    object_store_mib: int = 512,
    log_to_driver: bool = False,
) -> Generator[ClusterFacts]:
    """Run the body of the `with` on a Ray cluster; yields what the cluster has.

    With an `address` ("host:port"), or inside `ray job submit`, or with RAY_ADDRESS set, that
    cluster is joined, and only left at the end. Otherwise ("local" forces this) a Ray of `num_cpus`
    cores (default: all) with an object store of `object_store_mib` is started on the loopback
    interface, and ended with everything in it on the way out, also by Ctrl-C. `log_to_driver` shows
    what actors print. Raises SessionError.
    """
    if ray.is_initialized():
        raise SessionError("a session is already open in this process: close it first")
    root = _project_root()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    common: dict[str, Any] = {
        "log_to_driver": log_to_driver,
        "logging_level": logging.ERROR,
        "runtime_env": _runtime_env(root),
    }
    if address == "local":
        opened = _local(num_cpus, object_store_mib, common)
    else:
        opened = _joined(address, common)
    # Ray prints a page on stdout for every process that dies, even one that is started again.
    printer = worker.print_to_stdstream if log_to_driver else _log
    with (
        _replaced(worker, "print_to_stdstream", printer),
        _replaced(worker, "_unhandled_error_handler", _log_unheard),
        opened,
    ):
        yield facts()


def facts() -> ClusterFacts:
    """What the cluster of the open session has now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return ClusterFacts(
        nodes=tuple(
            Node(
                node.get("CPU", 0),
                node.get("GPU", 0),
                node.get("memory", 0),
                accelerator(node),
            )
            for node in alive
        ),
        address=ray.get_runtime_context().gcs_address,
    )


@contextmanager
def _local(num_cpus: int | None, object_store_mib: int, common: dict[str, Any]) -> Generator[None]:
    temporary = Path(tempfile.mkdtemp(prefix="isthmus-", dir=_TEMPORARY))
    # Without a token anyone who reaches the ports can run code, so every port must be on loopback.
    defaults = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        # Ray binds to loopback only where it believes that it cannot be a cluster: with any other
        # node address, even another loopback one, it listens on all interfaces.
        with _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False):
            ray.init(
                "local",
                num_cpus=num_cpus,
                object_store_memory=object_store_mib * 2**20,
                include_dashboard=False,
                _temp_dir=str(temporary),
                **common,
            )
        assert facts().address.rpartition(":")[0] in _LOOPBACK, facts().address
        yield
    finally:
        ray.shutdown()
        for name in added:
            os.environ.pop(name, None)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _joined(address: str, common: dict[str, Any]) -> Generator[None]:
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdecimal():
        raise SessionError(
            f"the address {address!r} is not host:port of a Ray head (the http address is for `ray "
            "job submit` alone): give it so, or unset RAY_ADDRESS to start a local Ray"
        )
    try:
        # Ray itself would try for minutes.
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise SessionError(
            f"no Ray cluster answers at {address}: {error.strerror or error}"
        ) from None
    # Ray takes a loopback address for the machine's outer one, where a local head does not listen.
    kept = host in _LOOPBACK
    try:
        with _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False) if kept else nullcontext():
            ray.init(address, **common)
    except (ConnectionError, RuntimeError, RayError) as error:
        reason = " ".join(str(error).split())
        raise SessionError(f"the Ray cluster at {address} cannot be joined: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Generator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001 - Ray's signature
    for line in data["lines"]:
        _LOGGER.info("ray: %s", line)


def _log_unheard(error: Exception) -> None:
    # A call in flight beside one that was lost: the one that was waited for says it in one line.
    _LOGGER.info("unheard: %s", error)


def _project_root() -> Path:
    """The directory of the five rooms, once it is sure that all of them are imported from it."""
    root = Path(__file__).resolve().parents[1]
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin != root / room / "__init__.py":
            raise SessionError(
                f"the package {room!r} would be shipped from {root / room}, but is imported from "
                f"{origin.parent if origin else 'nowhere'}: run `python -m jobs` in {root}"
            )
    if not (root / "pyproject.toml").is_file():
        raise SessionError(f"{root} is no checkout of the project: run `python -m jobs` in one")
    return root


def _runtime_env(root: Path) -> dict[str, Any]:
    """What Ray ships: the five rooms, unless this is a job whose code was shipped with it."""
    job = json.loads(os.environ.get(_JOB_CONFIG, "{}"))
    if "working_dir" not in (job.get("runtime_env") or {}):
        return {"working_dir": str(root), "excludes": _EXCLUDES}
    if root != Path.cwd().resolve():
        raise SessionError(
            f"this job ships {Path.cwd()}, but runs the code in {root}: "
            "give `python -m jobs ...` as its entry point"
        )
    return {}
