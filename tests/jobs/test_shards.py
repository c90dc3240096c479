"""The plan of a model that is cut up, by the command: exact, without weights, and in one line where
there is none."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

from actors.checkpoints import stored_tensors
from actors.fleet import fleet
from jobs.footprint import weights_per_gpu
from jobs.names import ROOT


def shards(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs", "shards", *arguments]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=120, check=False
    )


def planned(to: Path, *arguments: str) -> list[dict[str, Any]]:
    ran = shards(*arguments, "--to", str(to))
    assert ran.returncode == 0, ran.stderr
    return json.loads(to.read_text())


def size(box: list[list[int]]) -> int:
    return prod(end - start for start, end in box)


def overlap(a: list[list[int]], b: list[list[int]]) -> bool:
    return all(x[0] < y[1] and y[0] < x[1] for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", ["mixtral", pytest.param("gemma3_text", marks=pytest.mark.long)])
def test_the_slices_of_all_ranks_make_the_checkpoint(
    checkpoint: Callable[[str], Path], tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over three ranks, which divide nothing evenly: what is cut is read once by all together, and
    what is not is read by each."""
    where = checkpoint(case)
    compiled = tmp_path / "extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(compiled))
    plans = planned(tmp_path / "slices.json", str(where), "--ranks", "3", "--dtype", "fp32")
    assert not compiled.exists(), "nothing is compiled for a plan"
    assert [plan["rank"] for plan in plans] == [0, 1, 2]
    found = defaultdict(list)
    for plan in plans:
        for piece in plan["slices"]:
            found[piece["tensor"], piece["parameter"]].append(piece["slice"])
        into = sum(size(piece["into"]) for piece in plan["slices"])
        assert 4 * into == plan["holds_bytes"] == plan["reads_bytes"]
    stored = {tensor.key: tensor for tensor in stored_tensors(where)}
    assert {tensor for tensor, _ in found} == set(stored)
    cut = 0
    for (tensor, _), boxes in found.items():
        whole = [[0, length] for length in stored[tensor].shape]
        if all(box == whole for box in boxes):
            assert len(boxes) == 3
            continue
        cut += 1
        assert sum(size(box) for box in boxes) == prod(stored[tensor].shape)
        pairs = [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if size(a) and size(b)]
        assert not any(overlap(a, b) for a, b in pairs)
    # Queries, keys, values and what follows them; gates, ups and downs (of four experts); a head.
    assert cut == 3 * (4 + (12 if case == "mixtral" else 3)) + 1


def test_a_model_that_is_far_too_large_is_planned_in_seconds(tmp_path: Path) -> None:
    to = tmp_path / "slices.json"
    ran = shards("llama-3-70b", "--ranks", "8", "--to", str(to))
    assert ran.returncode == 0, ran.stderr
    plans = json.loads(to.read_text())
    parameters = 70_553_706_496
    embedding = 128_256 * 8192
    # All but the embedding and the norms' gains is shared out evenly; those each rank has.
    shared = parameters - embedding - (2 * 80 + 1) * 8192
    assert {plan["holds_bytes"] for plan in plans} == {2 * (parameters - shared + shared // 8)}
    assert len({piece["file"] for piece in plans[0]["slices"]}) == 30  # as it is published
    assert "18.14 GiB" in ran.stdout


def test_what_a_device_holds_is_foretold_by_the_configuration_alone(tmp_path: Path) -> None:
    plans = planned(tmp_path / "slices.json", "mixtral-8x7b", "--ranks", "4")
    foretold = 2 * weights_per_gpu(fleet()["mixtral-8x7b"].blueprint, 4)
    for plan in plans:
        # Gains and routers, which each rank has, are the difference.
        assert plan["holds_bytes"] == pytest.approx(foretold, rel=1e-3)


def test_every_slice_of_a_rank_is_listed(checkpoint: Callable[[str], Path]) -> None:
    ran = shards(str(checkpoint("llama")), "--ranks", "2", "--rank", "1", "--dtype", "fp32")
    assert "  model.layers.1.self_attn.q_proj.weight[16:32, :]  0.00 MiB\n" in ran.stdout
    assert "  model.layers.1.mlp.down_proj.weight[:, 32:64]  " in ran.stdout
    assert "  model.embed_tokens.weight[:, :]  0.05 MiB\n" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("llama-3-8b --ranks 1", 2, "--ranks 1: a model is cut over 2 ranks or more"),
        ("llama-3-8b --ranks 4 --rank 4", 2, "--rank 4: there are ranks 0 to 3"),
        ("llama-3-8b --ranks 2 --dtype fp17", 2, "no dtype 'fp17'; did you mean fp32?"),
        ("llama-3-8b --ranks 40", 2, "32 query heads (8 KV heads) cannot be shared out over 40"),
        ("gpt-4o --ranks 2", 3, "gpt-4o of OpenAI: its weights are not published"),
    ],
)
def test_what_cannot_be_planned_is_one_line(arguments: str, code: int, said: str) -> None:
    ran = shards(*arguments.split())
    assert (ran.returncode, ran.stdout) == (code, "")
    lines = [line for line in ran.stderr.splitlines() if "[WARNING]" not in line]
    assert len(lines) == 1
    assert lines[0].startswith(said)
