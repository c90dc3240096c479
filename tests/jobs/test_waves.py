"""A whole sweep whose models do not fit together: the same bits, and as few loads as can be."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.config import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SWEEP = """
import sys
from pathlib import Path
from jobs import sweep
from jobs.config import read_run_file
from jobs.progress import Reporter
import functools

sweep.session = functools.partial(sweep.session, num_cpus=2)
sweep.sweep(read_run_file(Path(sys.argv[1])), Reporter())
"""


def swept(run: Path) -> str:
    """What a sweep says, on a Ray of two cores whatever the machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ran = subprocess.run(
        [sys.executable, "-c", SWEEP, str(run)],
        cwd=ROOT,
        env=kept | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def blobs(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.glob("store/blobs/*/*")}


def numbers(home: Path) -> dict[str, Any]:
    matrix = json.loads((home / "runs/tiny/matrix.json").read_text())
    cells = [{key: of for key, of in cell.items() if key != "seconds"} for cell in matrix["cells"]]
    return {key: of for key, of in matrix.items() if key not in ("created", "seconds", "cells")} | {
        "cells": cells
    }


def loaded(said: str) -> list[str]:
    """The models that were loaded, in order."""
    lines = [line for line in said.splitlines() if line.startswith("loading ")]
    starts = [line.removesuffix(" ...") for line in lines if line.endswith(" ...")]
    return [name for line in starts for name in line.removeprefix("loading ").split(", ")]


def test_models_that_do_not_fit_together_take_turns_to_the_same_numbers(
    tmp_path: Path, tiny_run: Callable[..., Path], corpora: Path
) -> None:
    small = {
        "anchors": {
            "corpora": [{"file": str(corpora / "anchors.txt")}],
            "texts": 48,
            "shard_texts": 12,
            "batch_texts": 4,
        },
        "maps": {"roles": ["representation"], "fitters": ["ridge"]},
    }
    together = tiny_run(tmp_path / "together", 2, **small, cluster={"cpus_per_model": 1.0})
    apart = tiny_run(tmp_path / "apart", 2, **small, cluster={"cpus_per_model": 2.0})
    said = swept(together)
    assert "waves" not in said
    assert loaded(said) == ["models"]

    said = swept(apart)
    assert "2 models on 2 CPU: 2 waves, 3 loads" in said
    first, second, third = loaded(said)
    assert first == third != second
    assert numbers(apart.parent) == numbers(together.parent)
    assert blobs(apart.parent) == blobs(together.parent)
