"""Latents in a sweep: trained by all who read them on a real Ray, judged, and what is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from actors.cargo.soft_prompt import SoftPrompt, read_prompt, write_prompt
from actors.engine import load
from actors.reading import prompt_stream, stream
from alignment.latents import Latents
from evaluation.cargos.soft_prompt import PromptCell
from evaluation.record import model_name
from evaluation.tracking import pull
from jobs.__main__ import USER_ERROR
from jobs.cargos import CARGOS
from jobs.config import ConfigError, read_run_file
from jobs.latent_training import latent_rows
from jobs.progress import Reporter
from jobs.soft_prompts import ANOTHER, JOINT, LATER, MEAN, ZERO
from jobs.table import matrix_lines
from jobs.waves import Crew
from tests.deprecated import MLFLOW
from tests.sweeps import Driver, assert_same_cells, change, matrix_of

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    *MLFLOW,
]
NAMES = ("tiny-llama", "tiny-gemma", "tiny-qwen")
KEY = ("tiny-llama", "tiny-gemma", "soft_prompt", "sentiment")
SECTION = {
    "encoders": ["tiny-llama", "tiny-qwen"],
    "later": ["tiny-gemma"],
    "lessons": 48,
    "count": 4,
    "width": 16,
    "blocks": 1,
    "heads": 2,
    "epochs": 3,
    "prompt_epochs": 1,
    "bootstrap_draws": 200,
}


# Of the session: what is marked long comes last.
@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Path:
    """A run that carries latents alone, once it is done."""
    run = tiny_run(tmp_path_factory.mktemp("latents"), models=3, soft_prompt=SECTION)
    change(run, steering=None)
    Driver(run).finish()
    return run


def test_every_encoder_has_a_cell_for_every_other_model(swept: Path) -> None:
    cells = matrix_of(swept).cells
    assert {cell.key for cell in cells} == {
        (source, target, "soft_prompt", "sentiment")
        for source in SECTION["encoders"]
        for target in NAMES
        if target != source
    }
    for cell in cells:
        assert isinstance(cell, PromptCell)
        late = cell.target in SECTION["later"]
        assert [way.name for way in cell.ways] == [JOINT, *([LATER] if late else [])]
        assert cell.site == "residual.1"
        assert cell.of_bytes is not None or cell.retention is None
        assert 0 < cell.learned < cell.parameters
        assert {each.name for each in cell.controls} <= {ANOTHER, MEAN, ZERO}
        assert all(way.loss_after < way.loss_before for way in cell.ways)


def test_the_terminal_says_what_was_kept(swept: Path) -> None:
    lines = "\n".join(matrix_lines(matrix_of(swept)))
    assert f"latents  sentiment, tiny-llama → tiny-gemma: {JOINT} " in lines
    assert "the first 4 tokens of the text " in lines


def test_what_is_pulled_makes_the_same_rows(
    swept: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = read_run_file(swept)
    got = pull(model_name(*KEY), "champion", uri=run.tracking_uri, to=tmp_path / "got")
    assert "residual stream of tiny-llama at residual.1" in (got / "README.txt").read_text()
    cargo = got / "artifacts" / "cargo"
    facts = json.loads((cargo / "cargo.json").read_text())
    assert (facts["count"], facts["site"]) == (4, "residual.1")
    texts = ["A film that is alive.", "Dull."]
    held = stream(load(tiny_models["tiny-llama"]), texts, facts["site"])
    pulled = mlflow.pyfunc.load_model(str(got))
    theirs: Any = pulled.predict({str(number): rows for number, rows in enumerate(held)})
    latents = Latents.from_bytes((cargo / "latents.safetensors").read_bytes())
    ours = latent_rows(latents, ["tiny-gemma"], held)["tiny-gemma"]
    for number in range(len(texts)):
        np.testing.assert_allclose(theirs[str(number)], ours[number], atol=1e-4, rtol=1e-4)


def test_a_tuned_prompt_goes_through_pulled_latents(
    swept: Path, tiny_models: dict[str, Path], tmp_path: Path, run_verb: Callable[..., Any]
) -> None:
    run = read_run_file(swept)
    got = pull(model_name(*KEY), "champion", uri=run.tracking_uri, to=tmp_path / "got")
    source = load(tiny_models["tiny-llama"])
    rows = torch.randn((5, source.width), generator=torch.Generator().manual_seed(0))
    write_prompt(SoftPrompt(rows), tmp_path / "prompt", "tiny-llama")
    ends = ("--from", "tiny-llama", "--to", "tiny-gemma", "--run", swept)
    verb = ("carry", "soft_prompt", tmp_path / "prompt", *ends, "--latents", got)
    code, printed, complained = run_verb(*verb, "-o", tmp_path / "out")
    assert code == 0, printed + complained
    assert "5 rows, as tiny-llama holds them at residual.1, made 4 latents of sentiment" in printed
    carried = read_prompt(tmp_path / "out", load(tiny_models["tiny-gemma"]).width).rows
    cargo = got / "artifacts" / "cargo"
    latents = Latents.from_bytes((cargo / "latents.safetensors").read_bytes())
    held = prompt_stream(source, rows.numpy(), "residual.1")
    wanted = latent_rows(latents, ["tiny-gemma"], [held])["tiny-gemma"][0]
    np.testing.assert_allclose(carried.numpy(), wanted, atol=1e-5, rtol=1e-4)

    def refused(*more: object) -> str:
        code, _, complained = run_verb(*more, "-o", tmp_path / "other")
        assert code == USER_ERROR
        assert not (tmp_path / "other").exists()
        return complained.splitlines()[-1]

    assert "holds no latents that isthmus pull has brought" in refused(*verb[:-1], tmp_path)
    wrong = [{"tiny-gemma": "tiny-qwen"}.get(str(each), each) for each in verb]
    assert "its target is tiny-gemma, another model than tiny-qwen" in refused(*wrong)


def test_what_is_done_is_not_done_again(swept: Path) -> None:
    before = matrix_of(swept)
    assert "loading" not in Driver(swept).finish()
    assert_same_cells(matrix_of(swept), before)


def test_a_model_that_only_joins_later_costs_its_own_pairs(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    section = SECTION | {"encoders": [], "lessons": 32, "epochs": 1}

    def cells(models: int, **more: Any) -> dict[tuple[str, ...], PromptCell]:
        run = tiny_run(tmp_path, models=models, soft_prompt=section | more)
        change(run, steering=None)
        Driver(run).finish()
        return {of.key: of for of in matrix_of(run).cells if isinstance(of, PromptCell)}

    before = cells(2, later=[])
    after = cells(3, later=["tiny-qwen"], joint=False)
    assert {key: of.map_address for key, of in after.items() if key in before} == {
        key: of.map_address for key, of in before.items()
    }
    assert all(after[key].of_bytes == of.of_bytes for key, of in before.items())
    assert {(of.target, way.name) for of in after.values() for way in of.ways} == {
        ("tiny-llama", JOINT),
        ("tiny-gemma", JOINT),
        ("tiny-qwen", LATER),
    }


def test_a_skill_that_asks_about_no_text_is_refused(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    run = tiny_run(tmp_path, soft_prompt=SECTION | {"encoders": [], "later": []})
    CARGOS["soft_prompt"].ready(read_run_file(run))
    change(run, soft_prompt={"skills": ["social_media"]})
    allowed = "passage_answers, recall, rust, sentiment"
    with pytest.raises(ConfigError, match=rf"social_media does not ask about a text.*: {allowed}"):
        CARGOS["soft_prompt"].ready(read_run_file(run))


def test_readers_that_are_never_loaded_together_are_refused(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    def no_gang(name: str) -> Any:
        raise AssertionError(f"{name} is not asked for anything")

    one, two, three = NAMES
    crew = Crew(NAMES, [(one, two), (three,)], no_gang, {}, Reporter())
    section = {"encoders": [three], "bytes": False}
    run = tiny_run(tmp_path, models=3, soft_prompt=section)
    CARGOS["soft_prompt"].require(read_run_file(run), crew)
    for wrong in ({**section, "bytes": True}, {**section, "encoders": [one]}):
        change(run, soft_prompt=wrong)
        with pytest.raises(ConfigError, match=r"soft_prompt: .* do not fit into the cluster"):
            CARGOS["soft_prompt"].require(read_run_file(run), crew)


def test_models_that_are_not_there_are_refused(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    run = tiny_run(tmp_path, soft_prompt={"encoders": ["nobody"]})
    with pytest.raises(ConfigError, match=r"soft_prompt.encoders: no model 'nobody'; allowed: tin"):
        read_run_file(run)
    change(run, soft_prompt={"width": 10, "heads": 4})
    with pytest.raises(ConfigError, match="4 heads do not share evenly"):
        read_run_file(run)


@pytest.mark.long
def test_a_reader_that_dies_leaves_no_trace(
    swept: Path, tmp_path: Path, tiny_run: Callable[..., Path], start: Callable[..., Driver]
) -> None:
    run = tiny_run(tmp_path / "home", models=3, soft_prompt=SECTION)
    change(run, steering=None)
    driver = start(run)
    driver.wait_for(lambda: "training latents of tiny-llama" in driver.said())
    driver.wait_for(lambda: driver.doing("host-tiny-gemma.latent_slopes")).kill()
    driver.finish()
    assert_same_cells(matrix_of(run), matrix_of(swept))
