"""A concept whose texts come by groups: their directions are compared where they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from actors.host import ModelHost
from jobs.config import read_run_file
from tests.sweeps import Driver, Result, change

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
GROUPS = ("hat", "play", "stew")


def mean_of(host: ModelHost, site: str, texts: list[str]) -> np.ndarray:
    return host.pooled(texts, (site,), [0] * len(texts))[site].astype(np.float64).mean(0)


def test_a_sweep_says_how_far_groups_agree(
    tmp_path: Path, tiny_run: Callable[..., Path], corpora: Path
) -> None:
    whole = [json.loads(line) for line in (corpora / "feelings.jsonl").read_text().splitlines()]
    groups, said = {}, {}
    for group in GROUPS:
        records = [each for each in whole if group in each["text"].split()]
        file = tmp_path / f"{group}.jsonl"
        file.write_text("\n".join(map(json.dumps, records)))
        spec = {"file": str(file), "field": "text"}
        sides = {"positive": 1, "negative": 0}
        groups[group] = {side: spec | {"where": {"label": of}} for side, of in sides.items()}
        said[group] = [[e["text"] for e in records if e["label"] == of] for of in (1, 0)]
    every = {len(texts) for both in said.values() for texts in both}
    assert every == {24}
    run = tiny_run(tmp_path / "home")
    steering = yaml.safe_load(run.read_text())["steering"]
    change(
        run,
        steering=steering | {"concepts": [{"name": "sentiment", "texts": 24, "groups": groups}]},
    )
    result = Result.of(run, Driver(run).finish())

    found = result.matrix["agreements"]
    models = ("tiny-llama", "tiny-gemma")
    assert list(dict.fromkeys(each["model"] for each in found)) == list(models)
    places = [(each["concept"], each["model"], each["site"]) for each in found]
    assert len(set(places)) == len(places) >= 2 * len(models)
    hosts = {spec.name: ModelHost(spec, tmp_path) for spec in read_run_file(run).models}
    for each in found:
        assert each["names"] == list(GROUPS)
        directions = [
            np.subtract(*(mean_of(hosts[each["model"]], each["site"], side) for side in sides))
            for sides in said.values()
        ]
        unit = np.stack([direction / np.linalg.norm(direction) for direction in directions])
        np.testing.assert_allclose(each["cosine"], unit @ unit.T, atol=1e-4)
    page = (run.parent / "runs/tiny/index.html").read_text()
    assert "How far the groups of a concept agree" in page
    for model in models:
        assert f"groups   sentiment in {model}: the directions of " in result.said
