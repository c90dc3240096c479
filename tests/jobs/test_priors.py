"""The prior of a run's pairs: the catalog's own, and that of models made of others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.fleet import find
from actors.weights import default_cache, prepared
from evaluation.compatibility import DENSE_AND_SPARSE, UPSCALED, prior
from jobs.config import RunFile, read_run_file
from jobs.names import ROOT
from jobs.priors import priors, vocabularies


def scores(run: RunFile) -> dict[tuple[str, str], float]:
    return {(each.source, each.target): each.score for each in priors(run)}


@pytest.mark.real
def test_a_derived_model_is_like_its_base_with_a_configuration_of_its_own() -> None:
    run = read_run_file(ROOT / "configs" / "routes.yaml")
    found = scores(run)
    assert len(found) == 4 * 3
    plain, other = (find(name) for name in ("smollm2-135m-instruct", "gemma-3-270m"))
    here = (prepared(run.models[at], default_cache()) for at in (0, 3))
    assert found[plain.name, other.name] == prior(plain, other, vocabularies(*here)).score
    assert found[plain.name, "smollm2-permuted"] > found[plain.name, other.name]
    assert found[plain.name, "smollm2-sparse"] <= DENSE_AND_SPARSE
    raw = run.models[1].model_copy(update={"name": "deeper"})
    assert raw.derived is not None
    derived = raw.derived.model_copy(update={"recipe": "upscaled", "options": {}})
    upscaled = raw.model_copy(update={"derived": derived})
    more = scores(run.model_copy(update={"models": (*run.models, upscaled)}))
    assert more.get((plain.name, "deeper"), UPSCALED) <= UPSCALED


def test_models_of_directories_are_compared_by_their_configurations(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    found = scores(read_run_file(tiny_run(tmp_path, models=3)))
    assert len(found) == 3 * 2
    assert all(0 < score < 1 for score in found.values())
    assert found["tiny-llama", "tiny-qwen"] > found["tiny-llama", "tiny-gemma"]
