"""What docs/quickstart says, done as it stands, with the two pretrained models of the demo:
what is carried steers, and what should not carry does not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.weights import default_cache
from jobs.names import ROOT
from tests.sweeps import environment

pytestmark = [pytest.mark.real, pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(1200)]
PAIRS = [("smollm2-135m-instruct", "gemma-3-270m"), ("gemma-3-270m", "smollm2-135m-instruct")]
FILE = re.compile(r"In `([^`]+)`:\n\n```\w+\n(.*?)```", re.S)
COMMANDS = re.compile(r"```console\n(.*?)```", re.S)


def follow(page: str, at: Path) -> str:
    """Make the files of a page and give its commands, in a directory with `configs`; all that they
    say. What they keep at home is kept in there too."""
    text = (ROOT / "docs/quickstart" / page).read_text()
    for name, content in FILE.findall(text):
        (at / name).write_text(content)
    (at / "configs").symlink_to(ROOT / "configs")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {
        "HOME": str(at),
        "ISTHMUS_HOME": str(at / "isthmus"),
        "ISTHMUS_CACHE": str(default_cache().parent),
        "PATH": programs,
    }
    said = []
    for command in "".join(COMMANDS.findall(text)).splitlines():
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=at,
            env=environment(**own, HF_HUB_OFFLINE="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1100,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}"
        said.append(ran.stdout)
    return "\n".join(said)


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the page on steering was followed, and what was said."""
    at = tmp_path_factory.mktemp("steering")
    return at, follow("steering.md", at)


@pytest.fixture(scope="module")
def matrix(steered: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((steered[0] / "isthmus/runs/quickstart/matrix.json").read_text())


def test_the_further_along_the_carried_vector_the_likelier_is_a_good_word(
    steered: tuple[Path, str],
) -> None:
    leans = [float(each) for each in re.findall(r"by (-?[\d.]+) nats", steered[1])]
    assert len(leans) == 3
    assert leans == sorted(leans)
    assert leans[2] > leans[0]


def test_with_the_carried_adapter_problems_take_fewer_bits(tmp_path: Path) -> None:
    said = follow("adapter.md", tmp_path)
    plain, carried = map(float, re.findall(r"^[a-z ]+: ([\d.]+) bits a character$", said, re.M))
    assert carried < plain - 0.01
    assert "PeftModel" in (tmp_path / "carried-adapter/README.txt").read_text()


def test_a_model_of_ones_own_has_a_row(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    shutil.copytree(tiny_models["tiny-llama"], tmp_path / "my-model")
    said = follow("your-model.md", tmp_path)
    matrix = json.loads((tmp_path / "isthmus/runs/mine/matrix.json").read_text())
    pairs = [(cell["source"], cell["target"]) for cell in matrix["cells"]]
    pair = ("smollm2-135m-instruct", "mine")
    assert pairs == [pair, pair[::-1]] * len(matrix["cells"][::2])
    assert (tmp_path / "isthmus/runs/mine/index.html").exists()
    assert "mine" in said


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
