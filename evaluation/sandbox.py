"""Runs Python that nobody has read: without a network, without files, for a bounded time.

Namespaces come from bubblewrap: the program sees a read-only /usr, the Python that runs this, and
an empty /tmp. Limits are the kernel's own.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Literal

MIB = 2**20
Ending = Literal["done", "failed", "out of time"]
_NOBODY = "65534"  # on Debian
_LINKED = ("bin", "lib", "lib64")  # of /usr, and at the root
_OUT_OF_CPU = 128 + signal.SIGXCPU  # how a shell, and bubblewrap, say which signal ended it
_DEVICES = ("null", "zero", "urandom")


class SandboxError(RuntimeError):
    """No program can be run apart from everything else here; one line says what is missing."""


@dataclass(frozen=True)
class Limits:
    """What a program may use. `file_mib` bounds each file that it writes, what it says, and all of
    its /tmp; `processes` counts threads as well."""

    seconds: float = 10.0
    memory_mib: int = 512
    file_mib: int = 16
    processes: int = 16


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it wrote to stdout and stderr, as text, cut off at the end."""

    ending: Ending
    said: str
    error: str


def run_program(source: str, limits: Limits | None = None) -> Ran:
    """Run the text of a program by itself, with nothing but Python's own library.

    It is failed if it does not end with 0. What it started ends with it.

    Raises:
        SandboxError: bubblewrap is missing, or may not work here.
    """
    prove()
    return _run(source, limits or Limits())


@cache
def prove() -> None:
    """Make sure that a program which does nothing runs: no program's own words can tell that.

    Raises:
        SandboxError: bubblewrap is missing, or may not work here.
    """
    if shutil.which("bwrap") is None:
        raise SandboxError("programs are run in bubblewrap; as root: apt-get install bubblewrap")
    ran = _run("", Limits(seconds=60))
    if ran.ending != "done":
        raise SandboxError(f"no program can be run apart here: {ran.error.strip() or ran.ending}")


def _run(source: str, limits: Limits) -> Ran:
    command = ["bwrap", *_apart(limits), *_bounded(limits), *_python()]
    with TemporaryFile() as given, TemporaryFile() as said, TemporaryFile() as error:
        given.write(source.encode())
        given.seek(0)
        try:
            code = subprocess.run(
                command, stdin=given, stdout=said, stderr=error, timeout=limits.seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return Ran("out of time", _read(said), _read(error))
        if code == _OUT_OF_CPU:
            return Ran("out of time", _read(said), _read(error))
        return Ran("failed" if code else "done", _read(said), _read(error))


def _apart(limits: Limits) -> Iterator[str]:
    """What of this machine there is, as arguments of bubblewrap."""
    yield from ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts")
    yield from ("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv")
    for at in dict.fromkeys((Path("/usr"), Path(sys.base_prefix))):
        for above in list(at.parents)[-2::-1]:  # it would be let in by none but root
            yield from ("--perms", "0755", "--dir", str(above))
        yield from ("--ro-bind", str(at), str(at))
    for name in _LINKED:
        yield from ("--symlink", f"usr/{name}", f"/{name}")
    for name in _DEVICES:
        yield from ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    yield from ("--perms", "1777", "--size", str(limits.file_mib * MIB), "--tmpfs", "/tmp")
    yield from ("--remount-ro", "/", "--chdir", "/tmp")
    if os.geteuid():
        yield from ("--unshare-user", "--disable-userns")
    else:
        # Nothing bounds how many processes root has: so it is another user before Python begins.
        yield from ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
        yield from ("/usr/bin/setpriv", "--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups")
        yield from ("--inh-caps=-all", "--bounding-set=-all")


def _bounded(limits: Limits) -> Iterator[str]:
    # Set inside: there the processes of this program alone count.
    yield "/usr/bin/prlimit"
    yield f"--as={limits.memory_mib * MIB}"
    yield f"--fsize={limits.file_mib * MIB}"
    yield f"--nproc={limits.processes}"
    seconds = math.ceil(limits.seconds)
    yield f"--cpu={seconds}:{seconds + 1}"
    yield "--core=0"


def _python() -> Iterator[str]:
    yield str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
    yield from ("-I", "-S", "-B", "-X", "utf8", "-")


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MIB).decode(errors="replace")
