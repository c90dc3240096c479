"""What a model over two DeepSpeed ranks takes and gives, beside the same model in one process; and
what each rank of models that are too large for this machine would hold.

Peak memory is the growth of anonymous memory (RssAnon) while the model is loaded, over what the
libraries had taken before. Asked for: at most 1.3 times what the rank holds, and states, logits and
caches within 1e-4. The ranks work over gloo, with one thread each; the one process has two.

    python -m benchmarks.sharded_hosts
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from actors.encoding import encode
from actors.engine import Engine, load
from actors.weights import default_cache, prepare
from benchmarks.record import record
from cluster.world import World
from jobs.config import read_run_file
from jobs.names import ROOT

RANKS = 2
TEXTS = tuple(
    f"{who} {did} {what} while the rain fell on the roof of the old mill near the harbour."
    for who in ("The ferryman", "A tall nurse")
    for did, what in (("carried", "the kettle"), ("painted", "a door"), ("hid", "seven letters"))
)
PLANNED = [("llama-3-70b", 4), ("llama-3-70b", 8), ("mixtral-8x7b", 4), ("mixtral-8x7b", 8)]
# About the shape of a published model of 1.1 billion parameters; its weights are random, and stored
# in bfloat16.
LARGE: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 49152,  # of the tokenizer that is at hand
}
MIB = 2**20


@dataclass
class Took:
    """What a load took: seconds, and the growth of anonymous memory in bytes."""

    seconds: float = 0.0
    peak: int = 0


@dataclass
class Measured:
    """One process: what its load took, what it holds, and what it answers."""

    took: Took
    held: int
    tokens_per_second: float
    answers: dict[str, np.ndarray] = field(default_factory=dict)


def main() -> None:
    """Measure every model, plan the large ones, and record."""
    twins = {spec.name: spec for spec in read_run_file(ROOT / "configs/twins.yaml").models}
    demo = {spec.name: spec for spec in read_run_file(ROOT / "configs/demo.yaml").models}
    known = demo | twins
    found = {}
    for name in ("smollm2-135m-instruct", "gemma-3-270m", "smollm2-sparse"):
        found[name] = _compared(prepare(known[name], default_cache()), "float32")
    with tempfile.TemporaryDirectory() as scratch:
        found["random 1.1B, Llama's layout"] = _compared(_large(Path(scratch), known), "float32")
    record(
        "sharded_hosts",
        {
            "ranks": RANKS,
            "asked": {"peak_over_held": "<= 1.3", "relative_error": "<= 1e-4 (float32)"},
            "models": found,
            "planned": {f"{name} over {ranks}": _planned(name, ranks) for name, ranks in PLANNED},
        },
    )


def _compared(checkpoint: Path, dtype: str) -> dict[str, Any]:
    whole = _in_processes(_alone, 1, checkpoint, dtype)[0]
    ranks = _in_processes(_rank, RANKS, checkpoint, dtype)
    errors = {
        name: float(np.abs(ranks[0].answers[name] - own).max() / np.abs(own).max())
        for name, own in whole.answers.items()
    }
    return {
        "dtype": dtype,
        "whole": _said(whole),
        "ranks": [_said(rank) for rank in ranks],
        "largest_peak_over_held": max(rank.took.peak / rank.held for rank in ranks),
        "relative_error": {
            kind: max(error for name, error in errors.items() if name.startswith(kind))
            for kind in ("states", "logits", "keys", "values")
        },
    }


def _said(measured: Measured) -> dict[str, float]:
    return {
        "holds_mib": round(measured.held / MIB, 1),
        "peak_mib": round(measured.took.peak / MIB, 1),
        "load_seconds": round(measured.took.seconds, 2),
        "tokens_per_second": round(measured.tokens_per_second, 1),
    }


def _in_processes(target: Callable[..., None], count: int, *given: Any) -> list[Measured]:
    context = multiprocessing.get_context("spawn")
    places, answers = context.Queue(), context.Queue()
    started = [
        context.Process(target=target, args=(rank, places, answers, *given))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    found = dict(answers.get(timeout=600) for _ in started)
    for process in started:
        process.join()
    return [found[rank] for rank in range(count)]


def _alone(rank: int, _places: Queue, answers: Queue, checkpoint: Path, dtype: Any) -> None:
    with _watched() as took:
        engine = load(checkpoint, dtype, threads=2)
    answers.put((rank, _measured(engine, took)))


def _rank(rank: int, places: Queue, answers: Queue, checkpoint: Path, dtype: Any) -> None:
    if rank == 0:
        world = World.found("127.0.0.1", RANKS, 300)
        for _ in range(RANKS - 1):
            places.put(world.place)
    else:
        world = World.join(places.get(), rank, RANKS, 300)
    from actors import sharded  # whose libraries are not what is measured

    sharded.join(world)
    with _watched() as took:
        engine = load(checkpoint, dtype, held="sharded", world=world)
    answers.put((rank, _measured(engine, took)))


def _measured(engine: Engine, took: Took) -> Measured:
    held = {p.data_ptr(): p.numel() * p.element_size() for p in engine.model.parameters()}
    with torch.inference_mode():
        ids = encode(engine, TEXTS).ids
        states = engine.states(ids)
        answers = {"states": states, "logits": engine.logits(states[:2])}
        for layer, (keys, values) in enumerate(engine.cache(ids[:2])):
            answers |= {f"keys {layer}": keys, f"values {layer}": values}
        start = time.perf_counter()
        for _ in range(3):
            engine.states(ids)
        seconds = time.perf_counter() - start
    kept = {name: of.float().numpy().copy() for name, of in answers.items()}
    return Measured(took, sum(held.values()), 3 * ids.numel() / seconds, kept)


@contextmanager
def _watched() -> Iterator[Took]:
    took, done = Took(), threading.Event()
    before = _anonymous()

    def watch() -> None:
        while not done.wait(0.002):
            took.peak = max(took.peak, _anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    yield took
    took.seconds = time.perf_counter() - start
    done.set()
    watcher.join()


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _large(directory: Path, known: Any) -> Path:
    """A checkpoint written for this: random weights, and the tokenizer of a model that is here."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(**LARGE), dtype=torch.bfloat16)
    model.save_pretrained(directory)
    like = prepare(known["smollm2-135m-instruct"], default_cache())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((like / name).read_bytes())
    return directory


def _planned(model: str, ranks: int) -> dict[str, Any]:
    """Of every rank, by the command that users have."""
    with tempfile.TemporaryDirectory() as scratch:
        to = Path(scratch) / "slices.json"
        command = [sys.executable, "-m", "jobs", "shards", model, "--ranks", str(ranks)]
        subprocess.run([*command, "--to", str(to)], cwd=ROOT, check=True, capture_output=True)
        plans = json.loads(to.read_text())
    return {
        "holds_gib": [round(plan["holds_bytes"] / 2**30, 2) for plan in plans],
        "reads_gib": [round(plan["reads_bytes"] / 2**30, 2) for plan in plans],
        "files": len({piece["file"] for piece in plans[0]["slices"]}),
        "slices": [len(plan["slices"]) for plan in plans],
    }


if __name__ == "__main__":
    main()
