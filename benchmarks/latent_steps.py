"""What a step of training latents jointly costs, beside bare passes of those who read them.

Four readers, each in a host of its own on one thread, are trained together over Ray. Then each goes
forwards and backwards through the same tokens in this process, on one thread, with nothing around.
`wall` is what a user waits for, and hosts run side by side; `work` is the time that all processes
took of the cores.

    python -m benchmarks.latent_steps
"""

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np
import psutil  # pyrefly: ignore[untyped-import]
import torch

from actors.engine import Engine, load
from actors.examples import Example
from actors.weights import default_cache, prepare
from alignment.latents import Latents, LatentShape, Spread
from benchmarks.record import record
from cluster.storage import DirectoryStore, open_store
from jobs.config import read_run_file
from jobs.latent_training import LatentTraining, Lessons, train_latents
from jobs.names import ROOT
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.readers import LiveReaders
from jobs.texts import gather

RUN_FILE = ROOT / "configs" / "latents" / "fleet.yaml"
SHAPE = LatentShape(inputs=576)
BATCH, STEPS, ROWS = 16, 12, 30
BEFORE, EXAMPLE = "Review:", Example("\nSentiment: positive", 11)


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    run = read_run_file(RUN_FILE)
    names = [spec.name for spec in run.models]
    drawn = np.random.default_rng(0)
    states = drawn.normal(size=(BATCH * STEPS, ROWS, SHAPE.inputs)).astype(np.float32)
    lessons = Lessons(BEFORE, list(states), [EXAMPLE] * len(states))
    held = Lessons(BEFORE, lessons.states[:1], lessons.examples[:1])
    reporter = Reporter()
    with (
        opened(run, gather(run), open_store(run.store_location), reporter) as (crew, _),
        tempfile.TemporaryDirectory() as scratch,
    ):
        hosts = crew.live(names)
        latents = Latents(SHAPE, Spread.of(torch.from_numpy(np.concatenate(states))))
        for name in names:
            width = hosts[name].facts.width
            latents.add(name, Spread(torch.zeros(width), torch.full((width,), 0.05)))
        readers = LiveReaders(crew, 0, lambda: None)
        store = DirectoryStore(Path(scratch))
        short = Lessons(BEFORE, lessons.states[:BATCH], lessons.examples[:BATCH])
        training = LatentTraining(batch=BATCH, epochs=1)
        train_latents(latents, names, short, held, training, readers, store, "warm")
        pids = [os.getpid(), *(pid for name in names for pid in hosts[name].host.pids())]
        before, started = _work(pids), time.perf_counter()
        train_latents(latents, names, lessons, held, training, readers, store, "timed")
        wall = (time.perf_counter() - started) / STEPS
        work = (_work(pids) - before) / STEPS
    bare = {}
    for spec in run.models:
        bare[spec.name] = _bare(load(prepare(spec, default_cache()), spec.dtype))
    record(
        "latent_steps",
        {
            "asked": {"joint step, of the sum of bare passes": "<= 1.15"},
            "batch": BATCH,
            "latents": SHAPE.count,
            "seconds_a_step": {"joint, wall": wall, "joint, work": work, "bare": bare},
            "wall_of_bare": wall / sum(bare.values()),
            "work_of_bare": work / sum(bare.values()),
        },
    )


def _work(pids: Iterable[int]) -> float:
    """Seconds of the cores that these processes have taken."""
    times = (psutil.Process(pid).cpu_times() for pid in pids)
    return sum(each.user + each.system for each in times)


def _bare(engine: Engine) -> float:
    """Seconds to go forwards and backwards through a batch of embeddings of the same shape."""
    tokens = engine.tokenizer(BEFORE)["input_ids"]
    after = engine.tokenizer(EXAMPLE.text, add_special_tokens=False)["input_ids"]
    width, last = engine.width, torch.tensor([after[-1]] * BATCH)
    spent = []
    for _ in range(STEPS):
        shape = (BATCH, len(tokens) + SHAPE.count + len(after), width)
        read = (0.05 * torch.randn(shape)).requires_grad_()
        started = time.perf_counter()
        with torch.enable_grad():
            backbone = engine.model.get_submodule(engine.architecture.backbone)
            states = backbone(inputs_embeds=read, use_cache=False).last_hidden_state
            said = engine.logits(states[:, -2]).log_softmax(-1)
            (-said.gather(-1, last[:, None])).sum().backward()
        spent.append(time.perf_counter() - started)
    return median(spent)


if __name__ == "__main__":
    main()
