"""What is read of each model, told from a run file alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from actors.fleet import find
from jobs.cargos import readings
from jobs.config import read_run_file
from jobs.texts import Texts, gather
from jobs.workload import Reading

Writer = Callable[..., Path]


@pytest.fixture
def texts(tmp_path: Path, tiny_run: Writer) -> Texts:
    return gather(read_run_file(tiny_run(tmp_path)))


def test_tokens_grow_in_line_with_the_anchors_and_nothing_else_does(
    tmp_path: Path, tiny_run: Writer, texts: Texts
) -> None:
    run = read_run_file(tiny_run(tmp_path))
    once = readings(run, texts, 1)
    for times in (2, 5):
        more = readings(run, replace(texts, anchors=texts.anchors * times), 1)
        for one, many in zip(once, more, strict=True):
            expected = times if one.stage == "anchors" else 1
            assert many.tokens == pytest.approx(expected * one.tokens)
    assert all(reading.tokens > 0 and 0 < reading.share <= 1 for reading in once)


def test_training_is_counted_where_it_is_asked_for(
    tmp_path: Path, tiny_run: Writer, texts: Texts
) -> None:
    run = read_run_file(tiny_run(tmp_path))
    asked = run.model_copy(update={"steering": run.steers.model_copy(update={"trained": True})})
    (*same, one), (*_, two) = (readings(asked, texts, others) for others in (1, 2))
    assert tuple(same) == readings(run, texts, 1)
    assert one.stage == "training, at most"
    assert two.tokens == 2 * one.tokens > 0


def test_maps_of_caches_that_are_small_or_trained_are_counted(
    tmp_path: Path, tiny_run: Writer, caches: dict[str, Any]
) -> None:
    def stages(**more: Any) -> dict[str, float]:
        run = read_run_file(tiny_run(tmp_path, kv_cache=caches | more))
        return {each.stage: each.tokens for each in readings(run, gather(run), 1)}

    plain = stages(small=None, trained=False)
    small, trained = stages(trained=False), stages()
    assert plain.keys() == small.keys()
    assert trained.keys() - small.keys() == {"training maps of caches"}
    assert trained["training maps of caches"] > 2 * trained["caches"]
    handed = [each["handing caches over"] for each in (plain, small, trained)]
    assert handed == sorted(set(handed))
    assert plain["caches"] == trained["caches"]


def test_adapters_are_counted_and_a_refit_costs_its_share(tmp_path: Path, tiny_run: Writer) -> None:
    def stages(others: int, **more: Any) -> dict[str, float]:
        section = {"skills": ["social_media", "json_answers"], "texts": 40, **more}
        run = read_run_file(tiny_run(tmp_path, lora=section))
        return {each.stage: each.tokens for each in readings(run, gather(run), others)}

    one, two, more = stages(1), stages(2), stages(1, refit=0.3, lessons=100)
    assert one["training adapters"] == two["training adapters"] > more["training adapters"] > 0
    assert two["refitting adapters"] == pytest.approx(2 * one["refitting adapters"])
    assert more["refitting adapters"] == pytest.approx(0.9 * more["training adapters"])
    assert two["judging adapters"] < 2 * one["judging adapters"]


def test_latents_are_counted(tmp_path: Path, tiny_run: Writer) -> None:
    def stages(others: int, **more: Any) -> dict[str, float]:
        section = {"bytes": False, **more}
        run = read_run_file(tiny_run(tmp_path, models=others + 1, soft_prompt=section))
        return {each.stage: each.tokens for each in readings(run, gather(run), others)}

    one, two, half = stages(1), stages(2), stages(1, lessons=400)
    assert two["training prompts"] == one["training prompts"]
    assert half["training prompts"] == pytest.approx(0.5 * one["training prompts"], rel=0.05)
    assert two["training latents"] == pytest.approx(2 * one["training latents"])
    late, single = stages(2, later=["tiny-qwen"]), stages(2, encoders=["tiny-qwen"])
    assert late["training latents"] == pytest.approx(2 * two["training latents"])
    assert stages(2, later=["tiny-qwen"], joint=False) == two
    assert single["training latents"] == pytest.approx(two["training latents"] / 3)
    assert stages(2, bytes=True)["training latents"] == pytest.approx(1.5 * two["training latents"])
    assert single["reading texts"] == pytest.approx(two["reading texts"] / 3)


@pytest.mark.parametrize("case", ["llama", "qwen2", "gemma3_text"])
def test_the_work_of_a_token_is_what_a_forward_pass_does(
    checkpoint: Callable[[str], Path], case: str
) -> None:
    directory = checkpoint(case)
    model = AutoModelForCausalLM.from_pretrained(directory)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(torch.zeros(1, 8, dtype=torch.long))
    said = Reading("all", tokens=8, scored=8).flops(find(str(directory)).blueprint)
    assert said == pytest.approx(counted.get_total_flops(), rel=0.1)


def test_what_passes_part_of_the_blocks_is_counted_in_part() -> None:
    model = find("llama-3-8b").blueprint
    whole = Reading("all", 100).flops(model)
    assert Reading("half", 100, share=0.5).flops(model) == whole / 2
    head = 2 * 7 * model.vocabulary * model.width
    assert Reading("read", 100, scored=7).flops(model) == whole + head
