"""Writes what a benchmark measured, with the machine it was measured on."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evaluation.retention import Interval
from jobs.assemble import lineage

RESULTS = Path(__file__).parent / "results"


def record(name: str, figures: dict[str, Any]) -> Path:
    """Write `results/NAME.json` and print it."""
    machine = {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    whole = {"measured": measured, "machine": machine, "commit": lineage()["commit"], **figures}
    text = json.dumps(whole, indent=2) + "\n"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(text)
    print(text)
    return path


def kept(of: Interval | None) -> dict[str, float] | None:
    """A retention, if there is one."""
    return None if of is None else asdict(of)


def _processor() -> str:
    asked = subprocess.run(["lscpu", "--json"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return platform.processor()
    rows = json.loads(asked.stdout)["lscpu"]
    return next((row["data"] for row in rows if row["field"] == "Model name:"), "unknown")
