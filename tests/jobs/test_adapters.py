"""Adapters in a sweep: made, refit and judged on a real Ray, and what is left of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

from actors.adapting import adapting
from actors.cargo.lora import read_adapter
from actors.engine import load
from actors.matrices import places
from evaluation.cargos.lora import AdapterCell
from evaluation.record import model_name
from evaluation.tracking import pull
from jobs.adapters import ANCHORS, ANOTHER, OWN, SHUFFLED, SHUFFLED_SOLVED, SOLVED
from jobs.config import read_run_file
from jobs.table import matrix_lines
from tests.deprecated import MLFLOW, PEFT
from tests.sweeps import Driver, assert_same_cells, change, matrix_of

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    *MLFLOW,
    PEFT,
]
KEY = ("tiny-llama", "tiny-gemma", "lora", "social_media")
SECTION = {
    "skills": ["social_media", "json_answers"],
    "lessons": 96,
    "rank": 2,
    "learning_rate": 0.01,
    "texts": 60,
    "refit": 1.0,
    "tokens": 200,
    "bootstrap_draws": 200,
}


# Of the session: what is marked long comes last.
@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    """A run that carries adapters alone, once it is done."""
    run = tiny_run(tmp_path_factory.mktemp("adapters"), lora=SECTION)
    change(run, steering=None)
    Driver(run).finish()
    return run


def test_every_skill_has_a_cell_for_every_pair(swept: Path) -> None:
    cells = matrix_of(swept).cells
    assert {cell.key for cell in cells} == {
        (source, target, "lora", skill)
        for source, target in (("tiny-llama", "tiny-gemma"), ("tiny-gemma", "tiny-llama"))
        for skill in SECTION["skills"]
    }
    for cell in cells:
        assert isinstance(cell, AdapterCell)
        assert [way.name for way in cell.ways] == [ANCHORS, OWN, SOLVED]
        assert cell.way == max(cell.ways, key=lambda way: way.held).name or cell.retention is None
        assert all(0 < way.tokens <= 2 * cell.native_tokens for way in cell.ways)
        assert cell.safety is not None
        assert cell.native_safety is not None
        assert cell.safety.harmful_before == cell.native_safety.harmful_before
        assert {each.name for each in cell.controls} <= {SHUFFLED, SHUFFLED_SOLVED, ANOTHER}
        if cell.concept == "social_media":
            assert cell.native.value < cell.base.value, "fewer bits"
            assert cell.ways[0].loss_after < cell.ways[0].loss_before
            assert len(cell.controls) == 3


def test_the_terminal_says_what_each_way_keeps(swept: Path) -> None:
    lines = "\n".join(matrix_lines(matrix_of(swept)))
    (cell,) = (each for each in matrix_of(swept).cells if each.key == KEY)
    assert isinstance(cell, AdapterCell)
    assert f"adapters social media, tiny-llama → tiny-gemma: {ANCHORS} " in lines
    assert f"{cell.ways[-1].tokens:,} tokens; native {cell.native_tokens:,} tokens" in lines
    assert "bits per character; harmful requests are answered more often by " in lines
    assert "H1       more than 50 % of a skill crosses, somewhere: falsified" in lines


def test_what_is_pulled_is_what_peft_puts_on(
    swept: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = read_run_file(swept)
    (cell,) = (each for each in matrix_of(swept).cells if each.key == KEY)
    got = pull(model_name(*KEY), "champion", uri=run.tracking_uri, to=tmp_path / "got")
    assert "PeftModel.from_pretrained" in (got / "README.txt").read_text()
    cargo = got / "artifacts" / "cargo"
    config = LoraConfig.from_pretrained(str(cargo))
    assert isinstance(config, LoraConfig)
    assert config.r == SECTION["rank"]
    facts = json.loads((cargo / "cargo.json").read_text())
    assert cell.retention is not None
    assert facts["retention"][0] == cell.retention.value

    model = AutoModelForCausalLM.from_pretrained(tiny_models["tiny-gemma"])
    ids = torch.tensor([[5, 9, 30, 2]])
    with torch.no_grad():
        plain = model(ids).logits
        added = PeftModel.from_pretrained(model, str(cargo))(ids).logits - plain
    engine = load(tiny_models["tiny-gemma"])
    with torch.no_grad(), adapting(engine, read_adapter(cargo, places(engine)).updates):
        torch.testing.assert_close(engine.model(ids).logits - plain, added, atol=1e-5, rtol=1e-4)
    assert added.abs().max() > 0.01


def test_what_cannot_be_judged_here_is_said_at_the_start(
    tmp_path: Path, tiny_run: Callable[..., Path], start: Callable[..., Driver]
) -> None:
    run = tiny_run(tmp_path, lora=SECTION | {"skills": ["python"]})
    driver = start(run, PATH=str(tmp_path))
    assert driver.stopped().endswith("as root: apt-get install bubblewrap")
    assert "starting Ray" not in driver.said()


def test_what_is_done_is_not_done_again(swept: Path) -> None:
    before = matrix_of(swept)
    assert "loading" not in Driver(swept).finish()
    assert_same_cells(matrix_of(swept), before)


@pytest.mark.long
def test_a_host_that_dies_leaves_no_trace(
    swept: Path, tmp_path: Path, tiny_run: Callable[..., Path], start: Callable[..., Driver]
) -> None:
    run = tiny_run(tmp_path / "home", lora=SECTION)
    change(run, steering=None)
    driver = start(run)
    driver.wait_for(lambda: "json_answers: training adapters" in driver.said())
    driver.wait_for(lambda: driver.doing("host-tiny-gemma.")).kill()
    driver.finish()
    assert_same_cells(matrix_of(run), matrix_of(swept))


@pytest.mark.long
def test_programs_and_judgements_cross_as_well(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    of_these = {"skills": ["python", "sentiment"], "lessons": 64, "solve": False, "safety": False}
    run = tiny_run(tmp_path / "home", lora=SECTION | of_these)
    change(run, steering=None)
    driver = Driver(run)
    driver.finish()
    assert "sentiment: writing what is judged" in driver.said()
    cells = [cell for cell in matrix_of(run).cells if isinstance(cell, AdapterCell)]
    found = {(cell.concept, cell.unit, cell.items) for cell in cells}
    assert found == {
        ("python", "share that keeps the rule", 50),  # HumanEval, in the sandbox
        ("sentiment", "share right", 200),
    }
    for cell in cells:
        if cell.concept == "python":  # what so small a model writes passes no test
            assert (cell.base.value, cell.native.value, cell.retention) == (0, 0, None)
