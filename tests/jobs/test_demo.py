"""The demo's two pretrained models: what is carried steers, and what should not carry does not."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from jobs.names import ROOT

pytestmark = [pytest.mark.real, pytest.mark.ray, pytest.mark.timeout(1200)]
PAIRS = [("smollm2-135m-instruct", "gemma-3-270m"), ("gemma-3-270m", "smollm2-135m-instruct")]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep of the demo over fewer texts, one role and one fitter."""
    home = tmp_path_factory.mktemp("home")
    run = yaml.safe_load((ROOT / "configs/demo.yaml").read_text()) | {"home": str(home)}
    run["anchors"] |= {"texts": 192}
    run["similarity"] = {"rows": 500, "permutations": 20}
    run["maps"] = {"roles": ["representation"], "fitters": ["ridge"]}
    steering = {
        "strengths": [0.1, 0.2],
        "neutral_texts": 4,
        "shuffles": 4,
        "samples": 1,
        "sample_tokens": 8,
    }
    run["steering"] |= steering
    run["steering"]["concepts"][0]["texts"] = 128
    run["steering"]["other"]["texts"] = 16
    file = home / "run.yaml"
    file.write_text(yaml.safe_dump(run))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ran = subprocess.run(
        [sys.executable, "-m", "jobs", "sweep", str(file)],
        cwd=ROOT,
        env=kept | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1100,
    )
    assert ran.returncode == 0, ran.stdout
    return json.loads((home / "runs/demo/matrix.json").read_text())


def test_every_ordered_pair_is_measured(matrix: dict[str, Any]) -> None:
    assert [(cell["source"], cell["target"]) for cell in matrix["cells"]] == PAIRS
    assert [model["family"] for model in matrix["models"]] == ["llama", "gemma3_text"]


@pytest.mark.parametrize("number", [0, 1], ids=[" to ".join(pair) for pair in PAIRS])
class TestCarried:
    def test_the_native_vector_steers_on_its_own(self, matrix: dict[str, Any], number: int) -> None:
        native = matrix["cells"][number]["native"]
        assert 0 < native["low"] <= native["value"] <= native["high"]

    def test_the_map_holds_on_text_that_it_has_not_seen(
        self, matrix: dict[str, Any], number: int
    ) -> None:
        assert matrix["cells"][number]["held_out_r2"] > 0

    def test_much_of_the_effect_is_carried(self, matrix: dict[str, Any], number: int) -> None:
        assert matrix["cells"][number]["retention"]["low"] > 0.3

    def test_a_map_of_shuffled_rows_carries_less_than_half_of_it(
        self, matrix: dict[str, Any], number: int
    ) -> None:
        cell = matrix["cells"][number]
        controls = {control["name"]: control["retention"] for control in cell["controls"]}
        assert abs(controls["shuffled rows"]["value"]) < cell["retention"]["value"] / 2

    def test_layers_are_more_alike_than_chance(self, matrix: dict[str, Any], number: int) -> None:
        (like,) = [
            each
            for each in matrix["similarities"]
            if (each["source"], each["target"]) == PAIRS[number]
        ]
        assert max(max(row) for row in like["cka"]) > like["null_95"]
        assert min(min(row) for row in like["p_value"]) < 0.05
