"""Control vectors in GGUF, beside the real repeng and what llama.cpp asks of a file."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter

from actors.cargo.formats import FORMATS, read_vectors
from actors.cargo.vectors import SteeringVectors, VectorError
from tests.vector_files import LAYERS, WIDTH, drawn, refusal, same, sites


@pytest.fixture
def vectors() -> dict[int, np.ndarray]:
    return drawn()


# --- GGUF


@pytest.fixture
def repeng(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real library, which still asks NumPy for a name that went with version 2."""
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    return import_module("repeng")


def test_repeng_reads_what_we_write(
    repeng: Any, vectors: dict[int, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "v.gguf"
    FORMATS["gguf"].write(SteeringVectors(sites(vectors), "llama", "ab" * 32, "warmth"), path)
    taken = repeng.ControlVector.import_gguf(path)
    assert taken == repeng.ControlVector("llama", vectors)


def test_we_read_what_repeng_writes(
    repeng: Any, vectors: dict[int, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "v.gguf"
    repeng.ControlVector("mistral", {-1: vectors[11], 0: vectors[2]}).export_gguf(path)
    found = read_vectors(path, LAYERS)
    assert found.model == "mistral"
    assert same(found.vectors, {"residual.0": vectors[2], "residual.11": vectors[11]})


def test_repeng_adds_a_direction_to_the_output_of_the_block_of_its_number(repeng: Any) -> None:
    blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    llama = SimpleNamespace(
        model=SimpleNamespace(layers=blocks), device=torch.device("cpu"), dtype=torch.float32
    )
    row = np.ones(WIDTH, np.float32)
    repeng.ControlModel(llama, [-1, 1]).set_control(repeng.ControlVector("any", {1: row, 2: row}))
    added = [block(torch.zeros(1, 1, WIDTH)).sum().item() / WIDTH for block in blocks]
    assert added == [0, 1, 1]


def test_a_control_vector_has_what_llama_cpp_asks_for(
    vectors: dict[int, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "v.gguf"
    FORMATS["gguf"].write(SteeringVectors(sites(vectors), "llama"), path)
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 3
    assert {tensor.name for tensor in reader.tensors} == {f"direction.{n}" for n in vectors}
    for tensor in reader.tensors:
        assert tensor.tensor_type.name == "F32"
        assert tensor.shape.tolist() == [WIDTH]
    with pytest.raises(VectorError, match=r"no residual\.0, which llama\.cpp refuses"):
        FORMATS["gguf"].write(SteeringVectors(sites({0: vectors[2]})), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_ggufs_that_are_no_control_vectors(tmp_path: Path) -> None:
    def write(architecture: str, tensor: str, values: np.ndarray) -> Path:
        writer = GGUFWriter(tmp_path / "v.gguf", architecture)
        writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "v.gguf"

    row = np.ones(WIDTH, np.float32)
    assert refusal(write("llama", "direction.1", row)) == "a GGUF of llama, not of controlvector"
    told = refusal(write("controlvector", "blk.1.attn_q.weight", row))
    assert told == "blk.1.attn_q.weight: only direction.N is known, N being a layer"
    assert refusal(write("controlvector", "direction.up", row)) == "layer 'up' is no number"
    whole = np.ones(WIDTH, np.int32)
    told = refusal(write("controlvector", "direction.1", whole))
    assert told == "direction.1 is I32; F32, F16, F64 can be read"
    for kind in (np.float16, np.float64):
        found = read_vectors(write("controlvector", "direction.1", row.astype(kind)), LAYERS)
        assert same(found.vectors, {"residual.1": row})
