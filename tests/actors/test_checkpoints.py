"""A checkpoint directory is whole, or it is refused; its fingerprint is of the model alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.catalog import ModelError
from actors.checkpoints import check, facts, fingerprint, verify, write_record

WHOLE = "model.safetensors"


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "copy"))


def shard(directory: Path) -> None:
    """Spread the weights over two files and an index, as large models come."""
    tensors = load_file(directory / WHOLE)
    names = sorted(tensors)
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, directory / file)
    (directory / WHOLE).unlink()
    index = json.dumps({"metadata": {}, "weight_map": files})
    (directory / "model.safetensors.index.json").write_text(index)


def edit_config(directory: Path, **values: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_facts_of_every_family(
    checkpoint: Callable[[str], Path], subtests: pytest.Subtests
) -> None:
    for family, head_width in (("llama", 8), ("qwen2", 8), ("gemma3_text", 16)):
        with subtests.test(family):
            found = facts(checkpoint(family), "tiny", "bfloat16")
            assert (found.name, found.family, found.dtype) == ("tiny", family, "bfloat16")
            assert (found.layers, found.width, found.heads, found.kv_heads) == (3, 32, 4, 2)
            assert found.head_width == head_width
            tensors = load_file(checkpoint(family) / WHOLE)
            assert found.parameters == sum(tensor.numel() for tensor in tensors.values())
            embedding = tensors["model.embed_tokens.weight"]
            assert found.vocabulary == embedding.shape[0]


def test_the_fingerprint_is_blind_to_sharding_and_to_who_wrote_it(copy: Path) -> None:
    before = fingerprint(copy)
    parameters = facts(copy, "tiny").parameters
    shard(copy)
    edit_config(copy, transformers_version="9.9", _name_or_path="elsewhere", dtype="float16")
    assert check(copy) == "llama"
    assert fingerprint(copy) == before
    assert facts(copy, "tiny").parameters == parameters


def test_the_fingerprint_sees_every_change_of_the_model(copy: Path) -> None:
    seen = {fingerprint(copy)}
    tensors = load_file(copy / WHOLE)
    name = "model.layers.2.mlp.up_proj.weight"
    tensors[name][3, 5] = torch.nextafter(tensors[name][3, 5], torch.tensor(9.0))
    save_file(tensors, copy / WHOLE)
    seen.add(fingerprint(copy))
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors.pop(name)
    save_file(tensors, copy / WHOLE)
    seen.add(fingerprint(copy))
    edit_config(copy, rms_norm_eps=0.5)
    seen.add(fingerprint(copy))
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    seen.add(fingerprint(copy))
    assert len(seen) == 5


def test_a_record_is_the_fingerprint_and_stays_with_a_moved_directory(copy: Path) -> None:
    before = fingerprint(copy)
    write_record(copy, "0" * 64)
    assert fingerprint(copy) == before
    moved = shutil.copytree(copy, copy.with_name("moved"), copy_function=shutil.copyfile)
    verify(moved)
    assert fingerprint(moved) == before


@pytest.mark.parametrize("name", [WHOLE, "config.json", "tokenizer.json"])
def test_a_changed_byte_is_found_and_the_cure_told(name: str, copy: Path) -> None:
    write_record(copy, "0" * 64)
    verify(copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is not what was written.*delete {copy} and run"):
        verify(copy)
    (copy / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing: delete"):
        verify(copy)


def test_a_record_of_another_format_is_not_trusted(copy: Path) -> None:
    (copy / "isthmus.json").write_text('{"format": 0}')
    with pytest.raises(ModelError, match=r"has format 0, 1 is known: delete"):
        verify(copy)


def no_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def pickled(directory: Path) -> None:
    (directory / WHOLE).rename(directory / "pytorch_model.bin")


def no_weights(directory: Path) -> None:
    (directory / WHOLE).unlink()


def cut_weights(directory: Path) -> None:
    (directory / WHOLE).write_bytes((directory / WHOLE).read_bytes()[:-1])


def cut_head(directory: Path) -> None:
    (directory / WHOLE).write_bytes((directory / WHOLE).read_bytes()[:100])


def garbled_head(directory: Path) -> None:
    content = bytearray((directory / WHOLE).read_bytes())
    content[8] = 0xFF
    (directory / WHOLE).write_bytes(content)


def lost_shard(directory: Path) -> None:
    shard(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()


def no_family(directory: Path) -> None:
    (directory / "config.json").write_text("{}")


def garbled_config(directory: Path) -> None:
    (directory / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_config, "is not a checkpoint: it has no config.json"),
        (pickled, r"has its weights in pytorch_model.bin only: pickle is never read"),
        (no_weights, "has neither model.safetensors nor model.safetensors.index.json"),
        (cut_weights, "model.safetensors is truncated: [0-9]+ bytes are there, its header says"),
        (cut_head, "model.safetensors is truncated or not a safetensors file"),
        (garbled_head, "is not a safetensors file: its header is damaged"),
        (lost_shard, "model-00002-of-00002.safetensors is missing, though"),
        (no_family, "config.json names no model_type"),
        (garbled_config, "config.json is damaged: it is not JSON"),
        (shutil.rmtree, "is not a directory"),
    ],
)
def test_what_is_not_whole_is_refused_in_one_line(
    spoil: Callable[[Path], None], said: str, copy: Path
) -> None:
    spoil(copy)
    with pytest.raises(ModelError, match=said) as caught:
        check(copy)
    assert "\n" not in str(caught.value)
