"""A real S3-compatible server for tests: Ceph, all of it on loopback and in one directory.

One monitor, one disk in memory and a gateway, as processes of whoever runs the tests.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw")
PATIENCE = 90  # seconds; a quiet machine needs a tenth of it
KEY, SECRET = "isthmus-tests", "no-secret"

# Makes this process find a gateway; keywords change its environment, None takes away.
Reach = Callable[..., None]

MEMBERS = {
    "mon.": {"mon": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
}

SETTINGS = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor}
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
mon data avail warn = 1
mon data avail crit = 0
mgr initial modules =
keyring = {directory}/keyring
run dir = {directory}
log file = {directory}/$name.log
admin socket =
rgw enable usage log = false
rgw enable gc threads = false
rgw enable quota threads = false
rgw run sync thread = false
rgw thread pool size = 32
"""


class Gateway:
    """What speaks S3: it can be killed, and started again on the same port."""

    def __init__(self, ceph: "Ceph") -> None:
        self._ceph = ceph
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        name = self._ceph.directory / f"gateway-{self.port}"
        name.mkdir(exist_ok=True)
        self._process = self._ceph.start(
            *("radosgw", "--foreground", "--name", "client.admin", "--rgw-data", str(name)),
            *("--rgw-frontends", f"beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1"),
            *("--log-file", f"{name}.log"),
        )
        wait_for(lambda: _answers(self.port), f"no answer of radosgw; see {name}.log")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def environment(self) -> dict[str, str]:
        """What makes boto3 find it, and nothing of this machine's own settings."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"isthmus-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        """A client of the test's own."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required"),
        )


class Ceph:
    """The cluster behind the gateways."""

    def __init__(self, directory: Path) -> None:
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            raise RuntimeError(
                f"{', '.join(missing)}: not there. As root: apt-get install "
                "--no-install-recommends ceph-mon ceph-osd radosgw (or: make ceph)"
            )
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._fsid = str(uuid.uuid4())
        self._monitor = free_port()
        settings = SETTINGS.format(fsid=self._fsid, monitor=self._monitor, directory=directory)
        (directory / "ceph.conf").write_text(settings)
        try:
            self._bring_up()
        except BaseException:
            self.stop()
            raise

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process that ends with the cluster."""
        with (self.directory / "said.log").open("ab") as said:
            process = subprocess.Popen(
                command, env=self._environment, stdout=said, stderr=said, start_new_session=True
            )
        self._processes.append(process)
        return process

    def new_user(self, name: str, key: str, secret: str) -> None:
        """Let somebody in."""
        self._run("radosgw-admin", "user", "create", "--uid", name, "--display-name", name,
                  "--access-key", key, "--secret-key", secret)  # fmt: skip

    def stop(self) -> None:
        """End every process."""
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()

    @property
    def _environment(self) -> Mapping[str, str]:
        return os.environ | {"CEPH_CONF": str(self.directory / "ceph.conf")}

    def _run(self, *command: str) -> str:
        ran = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr[-2000:]}"
        return ran.stdout

    def _bring_up(self) -> None:
        at = {name: str(self.directory / name) for name in ("keyring", "monmap", "mon", "osd")}
        for role in ("mon", "osd"):
            Path(at[role]).mkdir()
        self._run("monmaptool", "--create", "--fsid", self._fsid, at["monmap"], "--addv", "a",
                  f"[v2:127.0.0.1:{self._monitor}]")  # fmt: skip
        self._run("ceph-authtool", "--create-keyring", at["keyring"])
        for name, rights in MEMBERS.items():
            caps = [part for daemon, right in rights.items() for part in ("--cap", daemon, right)]
            self._run("ceph-authtool", at["keyring"], "--gen-key", "--name", name, *caps)
        mon = ("ceph-mon", "-i", "a", "--mon-data", at["mon"])
        self._run(*mon, "--mkfs", "--monmap", at["monmap"], "--keyring", at["keyring"])
        self.start(*mon, "-f", "--public-addr", "127.0.0.1")
        osd_id = str(uuid.uuid4())
        self._run("ceph", "osd", "create", osd_id)
        osd = ("ceph-osd", "-i", "0", "--osd-data", at["osd"])
        self._run(*osd, "--mkfs", "--osd-uuid", osd_id)
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=here")
        self.start(*osd, "-f")
        self.new_user("tests", KEY, SECRET)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_for(what: Callable[[], bool], otherwise: str) -> None:
    """Wait until `what` holds."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
