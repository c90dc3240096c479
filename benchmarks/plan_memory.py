"""What `isthmus plan --probe` says of the demo, beside what the demo then takes.

The plan is made first; then the whole sweep runs in an empty home, while the peak resident memory
of each of its processes is read from /proc. Asked for: predicted peak memory within 15 %.

    python -m benchmarks.plan_memory
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from benchmarks.record import record
from jobs.config import read_run_file
from jobs.names import ROOT
from jobs.plan import plan
from jobs.progress import Reporter
from jobs.resident import MIB

RUN_FILE = Path("configs/demo.yaml")
EVERY_SECONDS = 0.3


def main() -> None:
    """Plan, run, compare and record."""
    run = read_run_file(ROOT / RUN_FILE)
    planned = plan(run, probe=True, reporter=Reporter(Console(stderr=True)))
    predicted = {process.name: process.total / MIB for process in planned.processes}
    with tempfile.TemporaryDirectory() as home:
        start = time.monotonic()
        measured = _watched(home, predicted)
        wall = time.monotonic() - start
        matrix = json.loads((Path(home) / "runs" / run.name / "matrix.json").read_text())
    record(
        "plan_memory",
        {
            "run": str(RUN_FILE),
            "asked": {"predicted over measured peak memory": "0.85 to 1.15"},
            "peak_mib": {
                name: {
                    "predicted": round(size),
                    "measured": round(measured[name]),
                    "predicted_over_measured": size / measured[name],
                }
                for name, size in predicted.items()
            },
            "sum_of_peaks_predicted_over_measured": sum(predicted.values())
            / sum(measured[name] for name in predicted),
            "seconds_predicted": planned.seconds_here,
            "seconds_measured": wall,
            "seconds_by_stage": matrix["seconds"],
        },
    )


def _watched(home: str, names: Collection[str]) -> dict[str, float]:
    """Peak resident MiB of every process of a sweep, by name."""
    peaks: dict[str, float] = {}
    command = [sys.executable, "-m", "jobs", "sweep", str(RUN_FILE)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"ISTHMUS_HOME": home}) as sweep:
        while sweep.poll() is None:
            for pid in _descendants(sweep.pid):
                name = "driver" if pid == sweep.pid else _name(pid, names)
                if name is not None:
                    peaks[name] = max(peaks.get(name, 0.0), _peak(pid))
            time.sleep(EVERY_SECONDS)
    if sweep.returncode:
        raise SystemExit(f"the sweep ended with {sweep.returncode}")
    return peaks


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(entry / "stat")):
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _name(pid: int, names: Collection[str]) -> str | None:
    """Of a host or a folder: Ray writes it, with what it is doing, over the command line."""
    title = _read(Path(f"/proc/{pid}/cmdline")).removeprefix("ray::")
    return next((name for name in names if title.startswith((f"{name}.", f"{name} "))), None)


def _peak(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", _read(Path(f"/proc/{pid}/status")))
    return int(found[1]) / 1024 if found else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has just ended


if __name__ == "__main__":
    main()
