"""`isthmus check`, as a user runs it: a prior that never passes for a measurement."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.fleet import find, fleet
from alignment.fitters import FITTERS
from evaluation.cargos.kv_cache import AgainScore, CacheCell, ContentScore, SmallScore
from evaluation.cargos.steering import SteeringCell
from evaluation.matrix import AnchorFacts, Matrix, ModelRow
from evaluation.retention import Interval, Level
from jobs.__main__ import CLOSED_WEIGHTS, USER_ERROR
from jobs.check import CheckError, answer, ask, fitters

OPEN = [name for name, entry in fleet().items() if entry.weights == "open"]
Command = Callable[..., str]


@pytest.fixture
def said(run_verb: Callable[..., tuple[object, str, str]]) -> Command:
    """Run a verb, and give what it printed: all of it on one side."""

    def run(*arguments: str, code: int = 0) -> str:
        ended, out, err = run_verb(*arguments)
        assert ended == code, out + err
        assert not (err if code == 0 else out)
        return out + err

    return run


def row(name: str) -> ModelRow:
    known = find(name).blueprint
    facts = known.model_dump(include=set(ModelRow.model_fields) - {"name", "fingerprint"})
    return ModelRow(name=name, fingerprint="0" * 64, **facts)


def measured(source: str, target: str, kept: float | None) -> Matrix:
    """A sweep's matrix with one steering cell and one of a cache, made up."""
    interval = Interval(0.0, 0.0, 0.0)
    share = None if kept is None else Interval(kept, kept - 0.02, kept + 0.02)
    both: dict[str, Any] = {
        "source": source,
        "target": target,
        "level": Level.POOR,
        "retention": share,
        "base": interval,
        "native": interval,
        "carried": interval,
        "controls": (),
        "held_out_r2": 0.5,
        "map_bytes": 1,
        "map_address": "0" * 64,
    }
    cell = SteeringCell(
        **both,
        concept="sentiment",
        site="residual.9",
        role="representation",
        strength=0.2,
        way="ridge",
        ways=(),
        places=(),
        together=None,
        native_p=0.05,
        judged=(),
        cosine_to_native=0.5,
        neutral=(),
        samples=(),
        vector_address="0" * 64,
    )
    cache = CacheCell(
        **both,
        way="all cells",
        tokens=Interval(0.2, 0.17, 0.23),
        heads={"learned": 0.41, "split": 0.33},
        again=(AgainScore(share=0.25, retention=Interval(0.9, 0.88, 0.92)),),
        small=(SmallScore(name="small", map_bytes=5_400_000, retention=Interval(0.8, 0.7, 0.9)),),
        contents=(
            ContentScore(name="prose", texts=8, gain=0.4, retention=share),
            ContentScore(name="source_code", texts=8, gain=0.0, retention=None),
        ),
        cached_characters=500,
        judged_characters=300,
        texts=16,
    )
    return Matrix(
        run="made-up",
        address="0" * 64,
        created="2026-11-14T09:30:00+00:00",
        models=(row(source), row(target)),
        similarities=(),
        cells=(cell, cache),
        anchors=AnchorFacts(texts=1, rows=1, fingerprint="0" * 64, corpora=()),
        lineage={},
        seconds={},
    )


def test_what_is_said_of_a_pair_is_a_prior_and_no_measurement(said: Command) -> None:
    out = said(
        "check", "llama-3-8b", "mistral-7b", "--cargo", "kv_cache",
        "--context-length", "128000", "--gpus", "4",
    )  # fmt: skip
    found = answer(ask("llama-3-8b", "mistral-7b", "kv_cache", 128_000, "bf16", 4))
    assert "llama-3-8b → mistral-7b, kv_cache" in out
    assert f"prior {found.prior.score:.2f}  tier {found.prior.tier}" in out
    assert "not measured" in out
    assert "measured here nothing yet" in out
    for each in found.prior.components:
        assert each.name in out
    assert all(risk.what.partition(":")[0] in out for risk in found.risks)
    # Both are asked for more than they were built for.
    assert "llama-3-8b was built for 8,192" in out
    assert "mistral-7b was built for 32,768" in out
    assert "memory on each of 4 GPUs, 128,000 tokens" in out
    assert "3.9 GiB" in out  # the cache of Llama 3 8B: 128 KiB a token, over four
    assert "load: at 1 GB/s" in out


def test_a_band_is_told_as_what_others_assert(said: Command) -> None:
    out = said("check", "llama-2-7b", "llama-2-13b")
    assert "as others assert it" in out
    assert "expected retention unknown" in said(
        "check", "yi-6b", "yi-34b", "--cargo", "soft_prompt"
    )


def test_what_a_soft_prompt_requires_is_tried_on_models_that_are_here(
    said: Command, tiny_models: dict[str, Path]
) -> None:
    here = str(tiny_models["tiny-gemma"])
    out = said("check", here, "yi-6b", "--cargo", "soft_prompt")
    assert "requirements, tried on" in out
    assert "logits are those of the same tokens" in out
    assert "requirements: not tried on yi-6b: its weights are not on this machine" in out
    assert "requirements" not in said("check", here, "yi-6b")


@pytest.mark.parametrize(
    ("wrong", "lines"),
    [
        (["llama-3-8", "mistral-7b"], ["no model 'llama-3-8' in the catalog", "llama-3-8b"]),
        (["llama-3-8b", "mistal-7b"], ["no model 'mistal-7b' in the catalog", "mistral-7b"]),
        (["yi-6b", "yi-34b", "--cargo", "kvcache"], ["no cargo 'kvcache'", "mean kv_cache?"]),
        (["yi-6b", "yi-34b", "--cargo", "x"], ["steering, kv_cache, lora, soft_prompt"]),
        (["yi-6b", "yi-34b", "--dtype", "bf61"], ["no dtype 'bf61'", "bf16"]),
        (["yi-6b", "yi-34b", "--context-length", "0"], ["--context-length 0: ", "from 1"]),
        (["yi-6b", "yi-34b", "--context-length", "-5"], ["--context-length -5: ", "from 1"]),
        (["yi-6b", "gpt2", "--context-length", "1025"], ["1,025: gpt2", "at most 1,024"]),
        (["yi-6b", "yi-34b", "--gpus", "0"], ["--gpus 0: ", "from 1"]),
        (["./nothing", "yi-6b"], ["./nothing is not in the catalog"]),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(
    said: Command, wrong: list[str], lines: list[str]
) -> None:
    line = said("check", *wrong, code=USER_ERROR)
    assert line.count("\n") == 1
    assert all(part in line for part in lines)


def closed_run(tmp_path: Path, model: str) -> str:
    run = tmp_path / "run.yaml"
    run.write_text(json.dumps({"name": "closed", "models": ["llama-3-8b", model]}))
    return str(run)


@pytest.mark.parametrize("verb", ["check", "plan", "sweep", "models"])
def test_every_verb_says_that_nothing_but_text_reaches_a_closed_model(
    said: Command, tmp_path: Path, verb: str
) -> None:
    arguments = ["llama-3-8b", "gpt-4o"] if verb == "check" else [closed_run(tmp_path, "gpt-4o")]
    line = said(verb, *arguments, code=CLOSED_WEIGHTS)
    assert line == (
        "gpt-4o of OpenAI: its weights are not published, so no activation, cache or adapter can "
        "cross into it or out of it; text relay is the only channel\n"
    )
    assert CLOSED_WEIGHTS == 3


def test_two_closed_models_have_a_line_each(said: Command) -> None:
    lines = said("check", "claude-3.5", "gemini-pro", code=CLOSED_WEIGHTS).splitlines()
    assert [line.partition(" of ")[0] for line in lines] == ["claude-3.5", "gemini-pro"]
    assert said("models", "claude-3-opus", code=CLOSED_WEIGHTS).startswith("claude-3-opus of ")


@pytest.mark.parametrize(("kept", "told"), [(0.87, "0.87 (0.85 to 0.89)"), (None, "undefined")])
def test_what_was_measured_here_stands_beside_the_prior(
    said: Command, tmp_path: Path, kept: float | None, told: str
) -> None:
    pair = ("smollm2-135m", "smollm2-360m")
    folder = tmp_path / "home" / "runs" / "made-up"
    folder.mkdir(parents=True)
    (folder / "matrix.json").write_text(measured(*pair, kept).to_json())
    # A matrix that cannot be read is not what was asked about.
    broken = folder.with_name("broken")
    broken.mkdir()
    (broken / "matrix.json").write_text("{}")

    cached = said("check", *pair, "--cargo", "kv_cache")
    assert "sentiment" not in cached
    lines = cached.partition("measured here ")[2].splitlines()
    assert lines[:7] == [
        f"{told}, continuation, way all cells, level Poor",
        "  own tokens alone 0.20 (0.17 to 0.23)",
        "  last 25% read again 0.90 (0.88 to 0.92)",
        "  small map of 5.4 MB 0.80 (0.70 to 0.90)",
        f"  prose {told}",
        "  source code undefined",
        "  R² of one layer by its heads: learned 0.41, split 0.33",
    ]

    out = said("check", *pair)
    assert f"measured here {told}, sentiment, way ridge, level Poor" in out
    assert f"prior {answer(ask(*pair, 'steering', None, 'bf16', 1)).prior.score:.2f}" in out
    for other in (reversed(pair), (*pair, "--cargo", "lora")):
        assert "measured here nothing yet" in said("check", *other)


def test_a_matrix_is_printed_with_what_stands_behind_each_cache(
    said: Command, tmp_path: Path
) -> None:
    file = tmp_path / "matrix.json"
    file.write_text(measured("smollm2-135m", "smollm2-360m", 0.87).to_json())
    out = said("report", str(file))
    assert "continuation" in out
    assert (
        "caches   continuation, smollm2-135m → smollm2-360m: own tokens alone 0.20 (0.17 to 0.23); "
        "last 25% read again 0.90 (0.88 to 0.92); small map of 5.4 MB 0.80 (0.70 to 0.90); "
        "prose 0.87 (0.85 to 0.89); source code undefined; "
        "R² of one layer by its heads: learned 0.41, split 0.33\n"
    ) in out


@pytest.mark.parametrize("cargo", ["steering", "kv_cache", "lora", "soft_prompt"])
def test_risks_of_a_pair_and_of_the_question_are_sorted_together(cargo: str) -> None:
    found = answer(ask("llama-3-8b", "mistral-7b", cargo, 40_000, "bf16", 1))
    impacts = [risk.impact for risk in found.risks]
    assert impacts == sorted(impacts, key=["high", "medium", "low"].index)
    about = [risk.what.partition(":")[0] for risk in found.risks]
    assert about.count("context") == 2
    assert ("first tokens" in about) == ("window" in about) == (cargo == "kv_cache")


def test_the_context_is_that_of_the_shorter_model_unless_it_is_given() -> None:
    assert ask("llama-3.1-8b", "llama-2-7b", "lora", None, "bf16", 1).context == 4096
    assert ask("llama-3.1-8b", "llama-2-7b", "lora", 77, "bf16", 1).context == 77
    with pytest.raises(CheckError, match=r"at most 1,024$"):
        ask("gpt2", "llama-2-7b", "lora", 2048, "bf16", 1)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_memory_is_that_of_each_model_in_the_precision_asked_for(dtype: str) -> None:
    found = answer(ask("yi-6b", "yi-34b", "kv_cache", 4096, dtype, 1))
    size = 4 if dtype == "fp32" else 2
    assert [entry.name for entry, _ in found.footprints] == ["yi-6b", "yi-34b"]
    for entry, each in found.footprints:
        assert each.weights == entry.blueprint.parameters * size
    assert len(answer(ask("yi-6b", "yi-6b", "lora", None, dtype, 1)).footprints) == 1


@pytest.mark.parametrize("target", OPEN)
def test_every_open_pair_has_an_answer(target: str) -> None:
    found = answer(ask("smollm2-1.7b", target, "kv_cache", 512, "bf16", 2))
    assert 0 < found.prior.score <= 1
    assert set(fitters(found.question)) <= set(FITTERS)


def test_vocabularies_that_are_here_are_measured(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    here = [str(tiny_models[name]) for name in ("tiny-llama", "tiny-gemma")]
    assert overlap(*here).measured
    assert not overlap(here[0], "llama-3-8b").measured
    # A configuration alone is enough for all the rest.
    (tmp_path / "config.json").write_text((Path(here[0]) / "config.json").read_text())
    assert not overlap(str(tmp_path), here[1]).measured


def overlap(source: str, target: str) -> Any:
    found = answer(ask(source, target, "lora", None, "bf16", 1)).prior
    return next(each for each in found.components if each.name == "tokenizer")
