"""What is pulled, in a fresh virtual environment: with what its requirements name, and no more."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from evaluation.matrix import Matrix
from evaluation.tracking import CHAMPION, pull
from tests.deprecated import MLFLOW, PEFT
from tests.tracking_bench import Bench

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1500),
    *MLFLOW,
    PEFT,
]

READ = """
import json, sys
import mlflow.pyfunc
for where in sys.argv[1:]:
    facts = mlflow.pyfunc.load_model(where).unwrap_python_model().facts()
    print(json.dumps([facts["cargo"], facts["source"], facts["target"]]))
"""
PUT_ON = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
model = PeftModel.from_pretrained(model, sys.argv[2]).eval()
with torch.inference_mode():
    print(json.dumps(model(input_ids=torch.tensor([[1, 5, 9, 13]])).logits[0].tolist()))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing in it."""
    directory = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    return directory / "bin"


def run(*command: str | Path) -> str:
    finished = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def install(fresh: Path, *wanted: str | Path) -> None:
    run(fresh / "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)


def test_every_cargo_is_read_with_what_it_asks_for_alone(
    fresh: Path,
    bench: Bench,
    made_up: Callable[..., Matrix],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    matrix = made_up(2, caches=True, skills=("rust",), latents=True)
    first = {cell.cargo: cell for cell in reversed(matrix.cells)}
    assert set(first) == {"steering", "kv_cache", "lora", "soft_prompt"}
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), local_files_only=True)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], r=2)
    adapted = get_peft_model(model, config).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapter = bench.files(matrix)[first["lora"].key]
    adapted.save_pretrained(str(adapter))
    bench.track(matrix)
    got = {
        cargo: pull("--".join(cell.key), CHAMPION, uri=bench.uri, to=tmp_path / cargo)
        for cargo, cell in first.items()
    }
    # The requirements of all are the same; the pins of torch come first, as in the Makefile.
    asked = (got["lora"] / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in asked} == {"mlflow", "torch", "safetensors"}
    for where in got.values():
        assert (where / "requirements.txt").read_text().split() == asked
    install(fresh, *(line for line in asked if line.startswith("torch")))
    install(fresh, *asked)
    read = run(fresh / "python", "-c", READ, *got.values()).splitlines()
    assert [json.loads(line) for line in read] == [
        [cargo, cell.source, cell.target] for cargo, cell in first.items()
    ]
    install(fresh, *(f"{name}=={version(name)}" for name in ("peft", "transformers")))
    cargo = got["lora"] / "artifacts" / "cargo"
    logits = json.loads(run(fresh / "python", "-c", PUT_ON, checkpoint("llama"), cargo))
    with torch.inference_mode():
        expected = adapted(input_ids=torch.tensor([[1, 5, 9, 13]])).logits[0]
    torch.testing.assert_close(torch.tensor(logits), expected)
