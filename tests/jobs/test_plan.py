"""`isthmus plan`: what a run needs, told before anything of it is loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from actors.catalog import ModelError
from actors.fleet import find
from actors.weights import default_cache, prepare
from cluster.node_types import ACTORS_SHARE
from cluster.placement import GIB
from jobs.__main__ import USER_ERROR
from jobs.config import read_run_file
from jobs.footprint import footprint
from jobs.placing import known_blueprint
from jobs.plan import START_SECONDS, ModelPlan, Placement, RunPlan, plan
from jobs.plan_table import plan_tables
from jobs.progress import Reporter
from jobs.resident import Process
from jobs.workload import Reading

ROOT = Path(__file__).parents[2]
PROBE = """
import json, sys
from pathlib import Path
from rich.console import Console
from jobs.config import read_run_file
from jobs.plan import plan
from jobs.plan_table import plan_tables
from jobs.progress import Reporter

whole = plan(read_run_file(Path(sys.argv[1])), True, Reporter(Console(quiet=True)))
speeds = [(m.speed.probed, m.flops, m.seconds_here, m.speed.flops) for m in whole.models]
print(json.dumps(speeds))
Console().print(plan_tables(whole))
"""
Writer = Callable[..., Path]
QUIET = Reporter(Console(quiet=True))


def planned(file: Path, probe: bool = False) -> RunPlan:
    return plan(read_run_file(file), probe, QUIET)


def by_stage(model: ModelPlan) -> dict[str, Reading]:
    return {reading.stage: reading for reading in model.readings}


def on(whole: RunPlan, node: str) -> Placement:
    return next(each for each in whole.placements if each.node.name == node)


def of_models(file: Path, models: list[Any]) -> Path:
    """The run file with other models."""
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"models": models}))
    return file


def large(*names: str, dtype: str = "bfloat16") -> list[dict[str, Any]]:
    return [{"name": name, "dtype": dtype} for name in names]


def test_a_model_reads_its_anchors_once_however_many_pairs_it_is_in(
    tmp_path: Path, tiny_run: Writer
) -> None:
    two, three = (planned(tiny_run(tmp_path / str(count), count)) for count in (2, 3))
    assert [len(two.models), len(three.models)] == [2, 3]
    for fewer, several in zip(two.models, three.models, strict=False):
        once, all_pairs = by_stage(fewer), by_stage(several)
        assert once.keys() == all_pairs.keys()
        for stage, reading in once.items():
            # The rest is for each source that something is carried from, one and then two, beside
            # what is asked of the target alone.
            more = all_pairs[stage]
            if stage in ("anchors", "vectors"):
                assert (more.tokens, more.scored) == (reading.tokens, reading.scored)
            elif stage == "samples":
                assert (more.tokens, more.scored) == (2 * reading.tokens, 2 * reading.scored)
            else:
                assert reading.tokens < more.tokens < 2 * reading.tokens
                assert reading.scored < more.scored < 2 * reading.scored


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "adapters").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_run_of_adapters_can_be_planned(file: Path) -> None:
    whole = planned(file)
    assert len(whole.models) == 2
    assert by_stage(whole.models[0])["training adapters"].tokens > 0
    assert plan_tables(whole)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "latents").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_run_of_latents_can_be_planned(file: Path) -> None:
    for spec in read_run_file(file).models:
        if spec.derived:
            prepare(spec, default_cache())
    whole = planned(file)
    assert by_stage(whole.models[0])["training latents"].tokens > 0
    assert plan_tables(whole)


def test_every_process_is_there_with_what_it_holds(tmp_path: Path, tiny_run: Writer) -> None:
    whole = planned(tiny_run(tmp_path, 3))
    names = [process.name for process in whole.processes]
    assert names == [
        *(f"host-{model.spec.name}" for model in whole.models),
        "folder-moments",
        "folder-layers",
        "driver",
    ]
    for process in whole.processes:
        assert all(size >= 0 for size in process.parts.values())
        assert process.total == sum(process.parts.values())
    assert whole.peak == sum(process.total for process in whole.processes)
    for model, process in zip(whole.models, whole.processes, strict=False):
        assert model.here
        assert process.parts["weights"] == model.blueprint.parameters * 4


def test_what_is_folded_of_caches_is_counted_once_for_the_largest_pair(
    tmp_path: Path, tiny_run: Writer, caches: dict[str, Any]
) -> None:
    def folder(models: int, **more: int) -> Process:
        file = tiny_run(tmp_path, models, kv_cache=caches | more)
        *_, found, driver = planned(file).processes
        assert (found.name, driver.name) == ("folder-caches", "driver")
        return found

    alone = folder(2)
    assert folder(3).total >= alone.total
    assert folder(2, components=64).parts["sums"] > alone.parts["sums"]
    assert folder(2, judged=caches["judged"] + 8).parts["rows kept"] > alone.parts["rows kept"]


def test_half_the_precision_is_half_the_weights(tmp_path: Path, tiny_run: Writer) -> None:
    file = tiny_run(tmp_path, models=2)
    run = read_run_file(file)
    halved = [model.model_copy(update={"dtype": "bfloat16"}) for model in run.models]
    half = plan(run.model_copy(update={"models": tuple(halved)}), False, QUIET)
    for before, after in zip(planned(file).processes[:2], half.processes[:2], strict=True):
        assert after.parts["weights"] == before.parts["weights"] / 2


def test_small_models_share_a_node_and_the_price_is_its_hours(
    tmp_path: Path, tiny_run: Writer
) -> None:
    whole = planned(tiny_run(tmp_path, 3))
    for placement in whole.placements:
        assert placement.why_not is None
        assert placement.seconds > START_SECONDS
        hours = placement.nodes * placement.seconds / 3600
        assert placement.usd == pytest.approx(hours * placement.node.usd_per_hour)
        # Each fits on one GPU; a machine with one takes one of them, a larger one takes all.
        assert placement.nodes == (3 if placement.node.gpus == 1 else 1)
        assert all(each.gpus == 1 for each in placement.spread.values())
    assert set(on(whole, "a10g").spread) == {"tiny-llama", "tiny-gemma", "tiny-qwen"}


def test_what_does_not_fit_says_why(tmp_path: Path, tiny_run: Writer) -> None:
    whole = planned(of_models(tiny_run(tmp_path), large("falcon-180b", "llama-3-8b")))
    assert not any(model.here for model in whole.models)
    alone = whole.processes[0].total / GIB
    assert alone > 332.6  # 178.6 B parameters of two bytes
    lacking = alone - ACTORS_SHARE * 128 + 4  # that the folders claim
    assert on(whole, "cpu").why_not == (
        f"host-falcon-180b asks for 0.5 CPU, 0 GPU, {alone:.1f} GiB; a node lacks {lacking:.1f} GiB"
    )
    refused = on(whole, "a10g-4x")
    assert refused.why_not is not None
    assert refused.why_not.startswith("falcon-180b needs ")
    assert " + 1 GiB on one A10G, which has 22, and falcon is not cut further" in refused.why_not
    assert "to pass its weights through from host memory" in refused.why_not
    assert (refused.nodes, refused.usd) == (0, 0)

    offloaded = on(whole, "a100-8x")
    assert offloaded.why_not is None
    held = {name: (each.held, each.ranks) for name, each in offloaded.holdings.items()}
    assert held == {"falcon-180b": ("offloaded", 8), "llama-3-8b": ("whole", 1)}
    assert set(offloaded.spread) == {"llama-3-8b"}  # the other is not divided on GPUs

    shown = Console(width=200)
    with shown.capture() as captured:
        shown.print(plan_tables(whole))
    assert "no: host-falcon-180b asks for" in captured.get()
    assert "weights in host memory" in captured.get()
    assert "not here yet" in captured.get()


def test_what_one_gpu_does_not_hold_is_spread_over_several(
    tmp_path: Path, tiny_run: Writer
) -> None:
    placed = on(
        planned(of_models(tiny_run(tmp_path), large("mistral-large", "llama-3-8b"))), "h100-8x"
    )
    assert placed.why_not is None
    spread = placed.spread
    assert (spread["mistral-large"].gpus, spread["llama-3-8b"].gpus) == (4, 1)
    for name, each in spread.items():
        shape = {"tokens": 256, "rows": 2, "dtype": "bfloat16"}
        assert each == footprint(find(name).blueprint, gpus=each.gpus, **shape)
        assert each.total <= placed.node.gpu_memory_gib * GIB
    assert placed.nodes == 1


def test_models_are_put_together_only_where_there_is_room_for_both(
    tmp_path: Path, tiny_run: Writer
) -> None:
    three = large("llama-2-13b", "qwen1.5-14b", "yi-34b")
    whole = planned(of_models(tiny_run(tmp_path), three))
    four = on(whole, "a10g-4x")
    assert [each.gpus for each in four.spread.values()] == [2, 2, 4]
    assert (four.nodes, on(whole, "a100-8x").nodes) == (2, 1)


def test_what_does_not_fit_on_all_nodes_at_once_goes_in_waves(
    tmp_path: Path, tiny_run: Writer
) -> None:
    names = ["llama-3-70b", "llama-3.1-70b", "llama-2-70b"]
    three = large(*names, dtype="float32")
    placed = on(planned(of_models(tiny_run(tmp_path), three)), "a100-8x")
    assert placed.why_not is None
    assert [each.gpus for each in placed.spread.values()] == [8, 8, 8]
    assert [len(wave) for wave in placed.waves] == [1, 2]
    assert (placed.nodes, placed.node.most) == (2, 2)


def test_a_model_that_is_not_here_and_not_in_the_catalog_is_one_line(
    tmp_path: Path, tiny_run: Writer
) -> None:
    made = {"base": "llama-3-8b", "recipe": "rotated"}
    run = read_run_file(
        of_models(tiny_run(tmp_path), [{"name": "turned", "derived": made}, "yi-6b"])
    )
    with pytest.raises(ModelError) as caught:
        plan(run, False, QUIET)
    assert str(caught.value) == (
        "model turned: it is not here yet and the catalog does not know it; "
        "isthmus models RUN --prepare makes it ready"
    )
    assert known_blueprint(run.models[1], None) == find("yi-6b").blueprint


def test_the_verb_prints_tables_of_all_of_it(
    tmp_path: Path,
    tiny_run: Writer,
    monkeypatch: pytest.MonkeyPatch,
    run_verb: Callable[..., tuple[object, str, str]],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run_verb("plan", tiny_run(tmp_path / "home"))
    assert code == 0
    for part in ("what is loaded", "tokens read by each model", "peak memory on this machine"):
        assert part in out
    for name in ("tiny-llama", "tiny-gemma", "folder-layers", "p5.48xlarge", "h100-8x"):
        assert name in out
    assert "estimates." in out
    assert "--probe measures it" in out
    # It says what a run would do, and does none of it.
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["run.yaml"]


def test_a_run_that_cannot_be_planned_is_one_line(
    tmp_path: Path,
    tiny_run: Writer,
    run_verb: Callable[..., tuple[object, str, str]],
) -> None:
    gone = [{"name": name, "directory": str(tmp_path / name)} for name in ("absent", "gone")]
    code, out, complaint = run_verb("plan", of_models(tiny_run(tmp_path), gone))
    assert (code, out) == (USER_ERROR, "")
    line = complaint.splitlines()[-1]
    assert line.startswith("model absent: ")
    assert str(tmp_path / "absent") in line


@pytest.mark.ray
def test_a_probe_loads_each_model_and_times_it(tmp_path: Path, tiny_run: Writer) -> None:
    file = tiny_run(tmp_path)
    # In a process of its own: this one may hold the Ray of other tests.
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, str(file)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    first, shown = ran.stdout.split("\n", 1)
    for before, (probed, flops, seconds, of) in zip(
        planned(file).models, json.loads(first), strict=True
    ):
        assert not before.speed.probed
        assert probed
        assert of != before.speed.flops
        assert 0 < of < 1e13
        assert flops == before.flops
        assert seconds == pytest.approx(flops / of)
    assert "speed here: probed" in shown
