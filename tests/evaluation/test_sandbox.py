"""Programs that nobody has read, what they try, and what comes of it."""

import os
import socket
import time
from pathlib import Path

import pytest

from evaluation import sandbox
from evaluation.sandbox import MIB, Limits, SandboxError, run_program

FORKS = """
import os, time
made = 0
while True:
    try:
        child = os.fork()
    except BlockingIOError:
        break
    if not child:
        time.sleep(60)
    made += 1
print(made)
"""
STAYS = """
import os, time
if not os.fork():
    os.setsid()
    for number in range(1000):
        time.sleep(0.1)
"""


def test_a_program_runs_and_says_what_it_says() -> None:
    ran = run_program("import json, math\nprint(json.dumps({'π': round(math.pi, 3)}))")
    assert (ran.ending, ran.said, ran.error) == ("done", '{"\\u03c0": 3.142}\n', "")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", ""),
        ("import numpy", "ModuleNotFoundError"),
        ("input()", "EOFError"),
    ],
)
def test_what_goes_wrong_in_it_is_its_own(source: str, why: str) -> None:
    ran = run_program(source)
    assert ran.ending == "failed"
    assert why in ran.error


@pytest.mark.parametrize(
    "source",
    [
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "import urllib.request; urllib.request.urlopen('http://localhost:{port}', timeout=2)",
        "import socket; socket.getaddrinfo('example.org', 80)",
    ],
)
def test_there_is_no_network_not_even_this_machine_itself(source: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ran = run_program(source.format(port=server.getsockname()[1]))
    assert ran.ending == "failed"
    assert "rror" in ran.error


def test_no_file_of_this_machine_is_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    for path in (tmp_path / "secret", Path("/etc/passwd"), Path(__file__), Path("/proc/1/environ")):
        assert "FileNotFoundError" in run_program(f"print(open({str(path)!r}).read())").error


@pytest.mark.parametrize("path", ["/usr/bin/new", "/new", "/dev/new"])
def test_nothing_is_written_but_what_is_thrown_away(path: str) -> None:
    assert run_program(f"open({path!r}, 'w')").ending == "failed"
    assert not Path(path).exists()
    assert run_program("open('/tmp/mine', 'w').write('x')").ending == "done"
    assert run_program("import os; print(os.listdir('/tmp'))").said == "[]\n"
    assert not Path("/tmp/mine").exists()


def test_no_variable_of_the_environment_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    assert "SECRET" not in run_program("import os; print(dict(os.environ))").said


def test_its_time_is_bounded() -> None:
    for source in ("while True: pass", "import time; time.sleep(60)"):
        started = time.monotonic()
        ran = run_program(f"print('begun', flush=True)\n{source}", Limits(seconds=1))
        assert (ran.ending, ran.said) == ("out of time", "begun\n")
        assert time.monotonic() - started < 20


def test_its_memory_is_bounded() -> None:
    limits = Limits(memory_mib=128)
    assert "MemoryError" in run_program(f"bytearray({200 * MIB})", limits).error
    assert run_program(f"bytearray({50 * MIB})", limits).ending == "done"


def test_what_it_writes_is_bounded() -> None:
    limits = Limits(file_mib=2)
    one = "f = open('/tmp/a', 'wb')\nwhile True: f.write(bytes(2**20))"
    many = "for n in range(9): open(f'/tmp/{n}', 'wb').write(bytes(2**20))"
    said = "while True: print('x' * 2**20)"
    assert "File too large" in run_program(one, limits).error
    assert "No space left on device" in run_program(many, limits).error
    ran = run_program(said, limits)
    assert ran.ending == "failed"
    assert len(ran.said) <= MIB


def test_how_many_processes_it_starts_is_bounded_and_they_end_with_it() -> None:
    ran = run_program(FORKS, Limits(processes=8))
    assert ran.ending == "done"
    assert 1 <= int(ran.said) <= 8
    assert run_program(STAYS).ending == "done"
    time.sleep(0.3)
    commands = (at.joinpath("cmdline") for at in Path("/proc").iterdir() if at.name.isdigit())
    assert not [at for at in commands if at.exists() and b"-I\0-S\0-B" in at.read_bytes()]


def test_it_can_end_nothing_outside_and_become_nobody_else() -> None:
    assert run_program(f"import os; os.kill({os.getpid()}, 9)").ending == "failed"
    assert run_program("import os; os.setuid(0)").ending == "failed"


def test_where_programs_cannot_be_run_apart_none_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    sandbox.prove.cache_clear()
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        run_program("print('run')")
    sandbox.prove.cache_clear()
