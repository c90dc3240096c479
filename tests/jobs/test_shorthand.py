"""Models of a run file that are written by name: what each stands for, and what stands for none."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.catalog import ClosedWeights
from actors.fleet import find, spec
from jobs.config import ConfigError, read_run_file
from jobs.names import ROOT


def demo() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())


def with_models(directory: Path, *models: Any) -> Path:
    file = directory / "run.yaml"
    file.write_text(yaml.safe_dump(demo() | {"models": list(models)}))
    return file


def test_a_name_of_the_catalog_stands_for_a_model(tmp_path: Path) -> None:
    file = with_models(
        tmp_path,
        "mistral-7b-v0.1",
        "Meta-Llama/Meta-Llama-3-8B",
        {"name": "gemma-7b", "dtype": "bfloat16"},
    )
    first, second, third = read_run_file(file).models
    assert first == spec(find("mistral-7b"))
    assert second == spec(find("llama-3-8b"))
    assert third == spec(find("gemma-7b")).model_copy(update={"dtype": "bfloat16"})


def made(name: str, base: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "derived": {"base": base, "recipe": "rotated"} | more}


def test_a_base_is_another_model_of_the_run_or_of_the_catalog(tmp_path: Path) -> None:
    own = {"name": "own", "hub": "maker/own"}
    run = read_run_file(
        with_models(
            tmp_path,
            made("turned", "own", seed=3),
            own,
            made("twice", "turned"),
            made("known", "yi-6b"),
            made("inside", {"name": "far", "gguf": "far.gguf"}),
        )
    )
    bases = {model.name: model.derived.base for model in run.models if model.derived}
    turned, listed = run.models[:2]
    assert (listed.hub, turned.derived and turned.derived.seed) == ("maker/own", 3)
    assert bases["turned"] == listed
    assert bases["twice"] == turned
    assert bases["known"] == spec(find("yi-6b"))
    assert bases["inside"].gguf == Path("far.gguf").absolute()
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(run.model_dump(mode="json", exclude_none=True)))
    assert read_run_file(again) == run


@pytest.mark.parametrize(
    ("models", "error", "said"),
    [
        ([made("a", "b"), made("b", "a")], ConfigError, "models: a is made from b is made from a"),
        ([made("a", "a"), "yi-6b"], ConfigError, "models: a is made from a"),
        (["yi-6b", "llama-3-8"], ConfigError, "'llama-3-8' in the catalog; nearest: llama-3-8b, "),
        (["yi-6b", made("a", "llama-3-8")], ConfigError, "nearest: llama-3-8b, "),
        (["yi-6b", {"name": "yi-34"}], ConfigError, "nearest: yi-34b, "),
        (["yi-6b", {"name": "yi-34"}], ConfigError, "; or give one of hub, directory, gguf, "),
        (["yi-6b", "gpt-4"], ClosedWeights, "gpt-4 of OpenAI: its weights are not published"),
        (["yi-6b", made("a", "gpt-4")], ClosedWeights, "gpt-4 of OpenAI: its weights are not "),
        (["yi-6b", {"name": "gpt-4"}], ClosedWeights, "gpt-4 of OpenAI: its weights are not "),
        (["yi-6b", "yi-6b"], ConfigError, "two models are named yi-6b"),
        (["yi-6b", 5], ConfigError, "models.1: 5: "),
        (["yi-6b", made("a", 5)], ConfigError, "models.1.derived.base: 5: "),
        (
            ["yi-6b", made("a", "yi-34b", sed=1)],
            ConfigError,
            "models.1.derived.sed: no such key; allowed: base, recipe, seed, options",
        ),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line(
    tmp_path: Path, models: list[Any], error: type[ValueError], said: str
) -> None:
    with pytest.raises(error) as caught:
        read_run_file(with_models(tmp_path, *models))
    line = str(caught.value)
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize("gpt", ["gpt-4", {"name": "gpt-4"}])
def test_a_closed_model_among_others_stands_apart(tmp_path: Path, gpt: Any) -> None:
    run = read_run_file(with_models(tmp_path, "yi-6b", gpt, "yi-34b"))
    assert [model.name for model in run.models] == ["yi-6b", "yi-34b"]
    assert run.closed == ("gpt-4",)
    again, told = tmp_path / "again.yaml", ["claude-3-opus", "gpt-4"]
    again.write_text(yaml.safe_dump(run.model_dump(mode="json", exclude_none=True)))
    assert read_run_file(again) == run
    again.write_text(yaml.safe_dump(demo() | {"models": ["yi-6b", gpt, "yi-34b"], "closed": told}))
    assert read_run_file(again).closed == ("claude-3-opus", "gpt-4")
    again.write_text(yaml.safe_dump(run.model_dump(mode="json") | {"closed": ["yi-6b"]}))
    with pytest.raises(ConfigError, match="closed: 'yi-6b' is no model of the catalog with clos"):
        read_run_file(again)
