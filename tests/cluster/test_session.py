import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from cluster.session import ROOMS, SessionError, session

ROOT = Path(__file__).parents[2]

OPEN = """
import sys
from cluster.session import session
with session(sys.argv[1] if len(sys.argv) > 1 else None) as facts:
    print(facts)
"""

ENDLESS = """
import os, time
from pathlib import Path
from ray._private.worker import global_worker as worker
from cluster.gang import Gang
from cluster.session import session
from cluster.storage import DirectoryStore
with session("local", num_cpus=1, object_store_mib=80):
    gang = Gang.launch(DirectoryStore, Path(), name="idle")
    print(os.getpid(), gang.pids()[0], worker.node.get_temp_dir_path(), flush=True)
    time.sleep(600)
"""


def environment(**added: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | added


def answer(*arguments: str, cwd: Path = ROOT, **added: str) -> str:
    """The last line a refused session writes."""
    ran = subprocess.run(
        [sys.executable, "-c", OPEN, *arguments],
        cwd=cwd,
        env=environment(**added),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    return ran.stderr.strip().splitlines()[-1].removeprefix("cluster.session.SessionError: ")


def test_a_package_from_somewhere_else_is_refused(tmp_path):
    stranger = tmp_path / "jobs" / "__init__.py"
    stranger.parent.mkdir()
    stranger.touch()
    assert answer(PYTHONPATH=f"{tmp_path}:{ROOT}", cwd=tmp_path) == (
        f"the package 'jobs' would be shipped from {ROOT / 'jobs'}, but is imported from "
        f"{stranger.parent}: run `python -m jobs` in {ROOT}"
    )


def test_packages_without_their_project_are_refused(tmp_path):
    for room in ROOMS:
        (tmp_path / room).mkdir()
        for file in (ROOT / room).glob("*.py" if room == "cluster" else "__init__.py"):
            (tmp_path / room / file.name).write_text(file.read_text())
    assert answer(cwd=tmp_path) == (
        f"{tmp_path} is no checkout of the project: run `python -m jobs` in one"
    )


def test_code_other_than_what_the_job_ships_is_refused(tmp_path):
    job = '{"runtime_env": {"working_dir": "gcs://_ray_pkg_0123.zip"}}'
    assert answer(RAY_JOB_CONFIG_JSON_ENV_VAR=job, PYTHONPATH=str(ROOT), cwd=tmp_path) == (
        f"this job ships {tmp_path}, but runs the code in {ROOT}: "
        "give `python -m jobs ...` as its entry point"
    )


def test_what_is_no_address_is_refused():
    for wrong in ("http://127.0.0.1:8265", "somewhere"):
        assert answer(RAY_ADDRESS=wrong).startswith(
            f"the address {wrong!r} is not host:port of a Ray head"
        )


def test_an_address_where_nobody_answers_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = answer(f"127.0.0.1:{port}")
    assert told == f"no Ray cluster answers at 127.0.0.1:{port}: Connection refused"


@pytest.mark.ray
def test_a_running_cluster_is_joined_and_left_running(local_ray):
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-c", OPEN, local_ray.address],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.stdout == f"{local_ray}\n", ran.stderr
        assert ran.stderr == ""


@pytest.mark.ray
def test_facts_and_one_session_at_a_time(local_ray):
    assert len(local_ray.nodes) == 1
    assert local_ray.cpus == 3
    assert local_ray.address.startswith("127.0.0.1:")
    assert local_ray.memory_gib > 0
    with pytest.raises(SessionError, match="already open"), session("local"):
        pass


@pytest.mark.ray
def test_nothing_listens_beyond_the_loopback_interface(local_ray):
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in ours
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.ray
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_driver(how):
    driver = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What runs the tests may have been started in the background, deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        pid, actor, temporary = driver.stdout.readline().split()
        assert int(pid) == driver.pid
        started = psutil.Process(driver.pid).children(recursive=True)
        named = {f"{process.pid} {process.name()}": process for process in started}
        assert int(actor) in {process.pid for process in started}
        # As a terminal does: to the whole group.
        if how == signal.SIGINT:
            os.killpg(driver.pid, how)
        else:
            os.kill(driver.pid, how)
        noise = driver.stderr.read()
    if how == signal.SIGINT:
        assert noise.strip().endswith("KeyboardInterrupt")
        assert not Path(temporary).exists()
    else:
        # Nobody is left to clear up, and two idle helpers of Ray stay for a minute.
        shutil.rmtree(temporary)
        started = [process for name, process in named.items() if not name.endswith("Agent")]
    deadline = time.monotonic() + 30
    while alive := [process for process in started if process.is_running()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
