"""A sweep of all cargos over models that compute in half precision."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.config import CARGOS
from tests.jobs.test_adapter_routes import SECTION
from tests.sweeps import Driver, change, matrix_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
PROMPTS = {"lessons": 48, "count": 4, "width": 16, "heads": 2, "epochs": 1, "bytes": False}


@pytest.mark.long
def test_every_cargo_crosses_between_models_in_half_precision(
    tmp_path: Path, tiny_run: Callable[..., Path], caches: dict[str, Any]
) -> None:
    whole = {key: of for key, of in caches.items() if key not in ("small", "trained")}
    run = tiny_run(tmp_path, models=2, kv_cache=whole, lora=SECTION, soft_prompt=PROMPTS)
    models = yaml.safe_load(run.read_text())["models"]
    change(run, models=[each | {"dtype": "bfloat16"} for each in models])
    Driver(run).finish()
    matrix = matrix_of(run)
    assert set(matrix.cargoes) == set(CARGOS)
    for cell in matrix.cells:
        for of in (cell.base, cell.native, cell.carried):
            assert all(map(math.isfinite, (of.value, of.low, of.high))), cell.key
