"""Pulled maps, used as their README says and in a process that has none of our code."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment.cache_map import CacheMap
from alignment.maps import Affine, LowRank, Map, Mixture, Network
from evaluation.matrix import Matrix
from evaluation.tracking import CHAMPION, pull
from tests.adapter_files import LAYERS, save_adapter
from tests.cache_files import cache_map
from tests.deprecated import MLFLOW
from tests.tracking_bench import KEY, NAME, TARGET_WIDTH, WIDTH, Bench

Maker = Callable[..., Matrix]

pytestmark = [*MLFLOW]

LOADER = """
import json, sys

class Absent:
    names = {"alignment", "actors", "cluster", "evaluation", "jobs", "transformers", "ray"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import mlflow.pyfunc, numpy, torch
mlflow.set_tracking_uri(sys.argv[3])
points = numpy.arange(10, dtype="float32").reshape(2, 5)
for where in sys.argv[1:3]:
    loaded = mlflow.pyfunc.load_model(where)
    inner = loaded.unwrap_python_model()
    print(json.dumps({
        "transform": loaded.predict(points.tolist()),
        "pushforward": inner.pushforward(torch.from_numpy(points)).tolist(),
        "vector": inner.vector().tolist(),
        "site": inner.facts()["site"],
    }))
"""


def test_a_pulled_map_loads_without_our_code(shared: Bench, made_up: Maker, tmp_path: Path) -> None:
    shared.track(made_up(2))
    got = pull(NAME, CHAMPION, uri=shared.uri, to=tmp_path / "got")
    places = (f"models:/{NAME}@{CHAMPION}", str(got))
    finished = subprocess.run(
        [sys.executable, "-c", LOADER, *places, shared.uri],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    registered, pulled = map(json.loads, finished.stdout.splitlines()[-2:])
    assert registered == pulled
    kept = shared.files(made_up(2))[KEY]
    stored = load_file(kept / "map.safetensors")
    points = torch.arange(10, dtype=torch.float32).reshape(2, WIDTH)
    pushed = points @ stored["weight"].T
    torch.testing.assert_close(torch.tensor(pulled["pushforward"]), pushed)
    torch.testing.assert_close(torch.tensor(pulled["transform"]), pushed + stored["bias"])
    vector = load_file(kept / "vector.safetensors")["vector"]
    torch.testing.assert_close(torch.tensor(pulled["vector"]), vector)
    assert pulled["site"] == "residual.9"


def low_rank() -> Map:
    return LowRank(torch.randn(TARGET_WIDTH, 2), torch.randn(2, WIDTH), torch.randn(TARGET_WIDTH))


def network() -> Map:
    base = Affine(torch.randn(TARGET_WIDTH, WIDTH), torch.randn(TARGET_WIDTH))
    inner, outer = torch.randn(3, WIDTH), torch.randn(TARGET_WIDTH, 3)
    return Network.over(torch.randn(9, WIDTH), base, inner, torch.randn(3), outer)


def mixture() -> Map:
    weight, bias = torch.randn(3, TARGET_WIDTH, WIDTH), torch.randn(3, TARGET_WIDTH)
    mixed = Mixture.of(weight, bias, torch.randn(3, WIDTH), torch.randn(3))
    return mixed.over(torch.randn(9, WIDTH))


@pytest.mark.parametrize("made", [low_rank, network, mixture])
def test_a_map_of_another_kind_is_pulled_as_any(
    bench: Bench, made_up: Maker, tmp_path: Path, made: Callable[[], Map]
) -> None:
    from mlflow.pyfunc import load_model  # its import warns, unless `tracking` comes before

    matrix, stored = made_up(2), made()
    stored.save(bench.files(matrix)[KEY])
    bench.track(matrix)
    got = pull(NAME, CHAMPION, uri=bench.uri, to=tmp_path / "got")
    points = torch.randn(3, WIDTH)
    said: dict[str, Any] = {}
    with chdir(got):
        exec("\n".join(readme_lines(got)), said)
    loaded = load_model(str(got)).unwrap_python_model()
    for transform, pushforward in (
        (loaded.transform, loaded.pushforward),
        (said["transform"], said["pushforward"]),
    ):
        torch.testing.assert_close(transform(points), stored.transform(points))
        torch.testing.assert_close(pushforward(points), stored.pushforward(points))


def readme_lines(got: Path) -> list[str]:
    text = (got / "README.txt").read_text()
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


def test_the_lines_of_the_readme_run(shared: Bench, made_up: Maker, tmp_path: Path) -> None:
    shared.track(made_up(2))
    got = pull(NAME, "1", uri=shared.uri, to=tmp_path / "a" / "got")
    lines = readme_lines(got)
    assert len(lines) == 7
    check = "import torch; print(pushforward(torch.ones(2, 5)).shape, transform(vector[:5]).shape)"
    finished = subprocess.run(
        [sys.executable, "-c", "\n".join((*lines, check))],
        cwd=got,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.strip() == "torch.Size([2, 7]) torch.Size([7])", finished.stderr
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["got"], "nothing is left aside"


CACHE_LOADER = (
    LOADER.partition("import mlflow")[0]
    + """
import mlflow.pyfunc, numpy
inputs = json.loads(sys.argv[1])
model = mlflow.pyfunc.load_model(".")
found = model.predict({name: numpy.array(of, "float32") for name, of in inputs.items()})
said = {}
exec(sys.argv[2], said)
read = said["transform"]({name: said["torch"].tensor(of) for name, of in inputs.items()})
facts = model.unwrap_python_model().facts()
for cells in (found, read, {"facts": [facts["cached_characters"], facts["tokens"]]}):
    print(json.dumps({site: getattr(of, "tolist", lambda: of)() for site, of in cells.items()}))
print(json.dumps(model.unwrap_python_model().reads()))
"""
)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_pulled_map_of_caches_loads_without_our_code(
    bench: Bench, made_up: Maker, tmp_path: Path, rank: int | None
) -> None:
    matrix, stored = made_up(2, caches=True), cache_map(rank)
    key = matrix.cells[2].key
    stored.save(bench.files(matrix)[key], 16)
    tracked = bench.track(matrix)
    assert bench.track(matrix) == tracked, "the same matrix again changes nothing"
    got = pull("--".join(key), CHAMPION, uri=bench.uri, to=tmp_path / "got")
    inputs = {name: torch.randn(3, width) for name, width in stored.reads.items()}
    sent = json.dumps({name: of.tolist() for name, of in inputs.items()})
    finished = subprocess.run(
        [sys.executable, "-c", CACHE_LOADER, sent, "\n".join(readme_lines(got))],
        cwd=got,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Add type hints" not in finished.stderr
    predicted, read, facts, reads = map(json.loads, finished.stdout.splitlines()[-4:])
    expected = CacheMap.from_bytes(stored.to_bytes(16)).transform(inputs)
    for cells in (predicted, read):
        assert list(cells) == list(expected)
        for site, of in expected.items():
            torch.testing.assert_close(torch.tensor(cells[site]), of)
    assert facts["facts"] == [500, pytest.approx([0.183, 0.133, 0.233])]
    assert reads == stored.reads


ADAPTER_LOADER = (
    LOADER.partition("import mlflow")[0]
    + """
import mlflow.pyfunc, numpy
read = json.loads(sys.argv[1])
model = mlflow.pyfunc.load_model(".")
found = model.predict({name: numpy.array(of, "float32") for name, of in read.items()})
print(json.dumps({name: of.tolist() for name, of in found.items()}))
inner = model.unwrap_python_model()
print(json.dumps([inner.layers(), inner.directory(), inner.facts()["rank"]]))
"""
)


def test_a_pulled_adapter_loads_without_our_code(
    bench: Bench, made_up: Maker, tmp_path: Path
) -> None:
    matrix = made_up(2, skills=("rust",))
    key = matrix.cells[2].key
    changes = save_adapter(bench.root / "files" / "--".join(key))
    tracked = bench.track(matrix)
    assert bench.track(matrix) == tracked, "the same matrix again changes nothing"
    got = pull("--".join(key), CHAMPION, uri=bench.uri, to=tmp_path / "got")
    read = {layer: torch.randn(3, i) for layer, (_, i) in LAYERS.items()}
    sent = json.dumps({layer: of.tolist() for layer, of in read.items()})
    finished = subprocess.run(
        [sys.executable, "-c", ADAPTER_LOADER, sent],
        cwd=got,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    added, (layers, directory, rank) = map(json.loads, finished.stdout.splitlines()[-2:])
    for layer, of in read.items():
        torch.testing.assert_close(torch.tensor(added[layer]), of @ changes[layer].T)
    assert {layer: tuple(sizes) for layer, sizes in layers.items()} == LAYERS
    assert (Path(directory) / "adapter_config.json").is_file()
    assert rank == 8
    assert len(readme_lines(got)) == 4
    assert "PeftModel.from_pretrained(model, " in readme_lines(got)[-1]
