"""A text that one model has read, carried for another to go on from, as a user does it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedTokenizerFast

from actors.cargo.memory_package import MemoryPackage
from jobs.__main__ import USER_ERROR
from jobs.config import read_run_file
from tests.jobs.conftest import DID, WHAT, WHEN, WHERE, WHO, sentences

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SOURCE, TARGET = "tiny-llama", "tiny-gemma"
TEXT = " ".join(sentences(WHO, DID, WHAT, WHERE, WHEN)[1000:1003])
Verb = Callable[..., tuple[object, str, str]]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path], caches: dict[str, Any]
) -> Path:
    return tiny_run(tmp_path_factory.mktemp("caches"), kv_cache=caches)


@pytest.fixture
def package(run_verb: Verb, tmp_path: Path, tiny_models: dict[str, Path]) -> Path:
    notes, out = tmp_path / "notes.txt", tmp_path / "memory"
    notes.write_text(TEXT)
    code, printed, complained = run_verb("remember", tiny_models[SOURCE], notes, "-o", out)
    assert code == 0, printed + complained
    return out


@pytest.fixture
def carry(run_verb: Verb, run: Path, tmp_path: Path) -> Verb:
    def go(package: Path, *more: object, source: str = SOURCE) -> tuple[object, str, str]:
        ends = ("--from", source, "--to", TARGET, "--run", run, "-o", tmp_path / "out")
        return run_verb("carry", "kv_cache", package, *ends, *more)

    return go


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "carried.json").read_text())


def test_a_cache_is_carried_and_transformers_goes_on_from_it(
    carry: Verb, package: Path, tmp_path: Path, tiny_models: dict[str, Path], run: Path
) -> None:
    code, printed, complained = carry(package)
    assert code == 0, printed + complained
    assert "there is no map yet" in complained
    out = tmp_path / "out"
    kept, carried = MemoryPackage.load(out), record(out)
    assert kept.text == TEXT
    assert carried["retention"] is None
    assert carried["tokens_read_again"] == 0
    assert f"of {carried['tokens']:,} tokens" in printed

    # As its README says, and with nothing of ours.
    model = AutoModelForCausalLM.from_pretrained(tiny_models[TARGET])
    tokenizer = AutoTokenizer.from_pretrained(tiny_models[TARGET])
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    held = load_file(out / "cache.safetensors")
    assert held["ids"].tolist() == tokenizer(TEXT)["input_ids"]
    more = torch.tensor(tokenizer(" The old boat", add_special_tokens=False)["input_ids"])

    def gone_on(without: int = 0) -> torch.Tensor:
        cache = DynamicCache(config=model.config)
        for layer in range(3):
            keys, values = (held[f"{kind}.{layer}"][None] for kind in ("keys", "values"))
            cache.update(keys + without, values, layer)
        ids = torch.cat((held["ids"], more))[None]
        said = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=4,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return said.logits[0][0]

    assert (gone_on() - gone_on(without=1)).abs().max() > 1e-3  # it does read the cache
    assert f"range({3})" in (out / "README.txt").read_text()


def test_a_second_cache_goes_by_the_map_that_is_there(
    carry: Verb, package: Path, tmp_path: Path
) -> None:
    code, printed, complained = carry(package, "--verify")
    assert code == 0, printed + complained
    assert "there is no map yet" not in complained
    assert "retention" in printed
    (found,) = [line for line in printed.splitlines() if line.startswith("retention")]
    kept = record(tmp_path / "out")["retention"]
    assert ("undefined" in found) if kept is None else (f"{kept[0]:.2f}" in found)


def test_as_little_is_read_again_as_a_quality_takes(
    carry: Verb, package: Path, tmp_path: Path
) -> None:
    code, _, complained = carry(package, "--quality-target", "1.0")
    if code == USER_ERROR:  # random models: what comes next may hardly depend on the text
        assert "hardly depend on this text" in complained
        assert not (tmp_path / "out").exists()
        return
    found = record(tmp_path / "out")
    assert found["retention"][0] >= 1.0
    assert 0 <= found["tokens_read_again"] <= found["tokens"] - found["tokens_of_the_target_itself"]


def test_the_small_map_carries_as_well(carry: Verb, package: Path, tmp_path: Path) -> None:
    code, printed, complained = carry(package, "--small")
    assert code == 0, printed + complained
    held = load_file(tmp_path / "out" / "cache.safetensors")
    shutil.rmtree(tmp_path / "out")
    code, printed, complained = carry(package)
    assert code == 0, printed + complained
    whole = load_file(tmp_path / "out" / "cache.safetensors")
    assert held.keys() == whole.keys()
    assert not torch.equal(held["keys.1"], whole["keys.1"])


def test_fused_cells_lie_between_the_targets_own_and_the_carried_ones(
    carry: Verb, package: Path, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    held = []
    for more in ((), ("--fuse", "0.25")):
        code, printed, complained = carry(package, *more)
        assert code == 0, printed + complained
        held.append(load_file(tmp_path / "out" / "cache.safetensors"))
        kept = record(tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
    assert kept["fused"] == 0.25
    assert (
        f"fused, 25% of the way: {kept['tokens'] - kept['tokens_of_the_target_itself']}" in printed
    )
    carried, fused = held
    model = AutoModelForCausalLM.from_pretrained(tiny_models[TARGET])
    native = model(fused["ids"][None], use_cache=True).past_key_values
    for layer, of in enumerate(native.layers):
        for name, own in ((f"keys.{layer}", of.keys[0]), (f"values.{layer}", of.values[0])):
            last = own.shape[1]  # a layer with a window keeps no more
            expected = own + 0.25 * (carried[name][:, -last:] - own)
            torch.testing.assert_close(fused[name][:, -last:], expected, rtol=0, atol=1e-4)


def test_what_cannot_be_carried_is_said_in_a_line(
    carry: Verb, package: Path, run_verb: Verb, run: Path, tmp_path: Path
) -> None:
    def refused(place: Path, *more: object, source: str = SOURCE) -> str:
        code, printed, complained = carry(place, *more, source=source)
        assert code == USER_ERROR, printed + complained
        assert not (tmp_path / "out").exists()
        *_, last = complained.splitlines()
        return last

    assert "is no memory package" in refused(tmp_path / "absent")
    assert "a quality of 1.5: retention to reach is above 0, up to 1" in refused(
        package, "--quality-target", "1.5"
    )
    assert "fusion at 1: the share of the way is above 0, below 1" in refused(
        package, "--fuse", "1"
    )
    assert "the target reads all tokens" in refused(
        package, "--fuse", "0.1", "--quality-target", "0.9"
    )
    assert "are the same model" in refused(package, source=TARGET)
    assert "no model" in refused(package, source="tiny-lama")

    (tmp_path / "other").mkdir()
    record_file = package / "memory.json"
    was = record_file.read_text()
    fingerprint = json.loads(was)["fingerprint"]
    record_file.write_text(was.replace(fingerprint, "0" * 64))
    assert "another model, or another revision" in refused(package)
    record_file.write_text(was)

    without = tmp_path / "without.yaml"
    settings = read_run_file(run)
    assert settings.kv_cache is not None
    text = run.read_text()
    start = text.index("kv_cache:")
    end = text.index("\nmaps:", start)
    without.write_text(text[:start] + text[end + 1 :])
    ends = ("--from", SOURCE, "--to", TARGET, "-o", tmp_path / "out", "--run", without)
    code, _, complained = run_verb("carry", "kv_cache", package, *ends)
    assert code == USER_ERROR
    assert "has no section kv_cache" in complained


def test_a_text_longer_than_the_targets_context_is_refused(
    carry: Verb, package: Path, tmp_path: Path
) -> None:
    of = MemoryPackage.load(package)
    record_file = package / "memory.json"
    longer = json.loads(record_file.read_text())
    longer["text"] = of.text + " boat" * 200
    record_file.write_text(json.dumps(longer))
    code, _, complained = carry(package)
    assert code == USER_ERROR
    assert "is more than the context of 128 tokens holds" in complained
    assert not (tmp_path / "out").exists()
