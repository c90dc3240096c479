"""Resident memory of a run's processes on a CPU machine, before they are started.

The parts that come from libraries rather than from a model were measured once, on a sweep of the
demo with 128 anchor texts (torch 2.13, transformers 5.23); how well the whole predicts another run
is in benchmarks/results/plan_memory.json.
"""

from dataclasses import dataclass
from itertools import permutations

from actors import examples
from actors.behaviour import ROWS_A_HEAD, TOKENS_A_PASS
from actors.blueprint import BYTES, Blueprint
from actors.catalog import ModelFacts
from actors.comparing import TOGETHER
from alignment.similarity import BLOCK_ROWS, NULL_ROWS
from jobs.config import RunFile
from jobs.passages import BATCH_TEXTS, sampled
from jobs.sections import Adapters, Caches
from jobs.texts import Texts
from jobs.work import compared_shards, shards_of

MIB = 2**20
LIBRARIES = 165 * MIB  # mapped from their files: torch, transformers, Ray
HOST_HEAP = 350 * MIB  # of a host beside its model: modules, tokenizer, Ray
FOLDER_HEAP = 330 * MIB
DRIVER = 660 * MIB
RAY = 700 * MIB  # its own processes together, without the object store
# What a folder claims: libraries, every layer of the rows compared, the moments of open shards.
FOLDER_BYTES = 2 * 2**30
FOLDERS = ("moments", "layers")  # by their duties
_HEAD_COPIES = 6  # of a block of logits: plain and injected, each with its softmax and difference
_STREAM_COPIES, _MLP_COPIES = 4, 3
_LOGIT_COPIES = 4
_SUMS = 8  # of one direction of caches: for fitting and held out, shuffled, and what is solved


@dataclass(frozen=True)
class Process:
    """One process and its bytes, part by part."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def processes(run: RunFile, texts: Texts, models: dict[str, Blueprint]) -> tuple[Process, ...]:
    """Every process of a sweep on this machine, at its peak."""
    words = words_compared(run, texts)
    dtypes = {spec.name: spec.dtype for spec in run.models}
    hosts = [host(name, model, dtypes[name], words, run.lora) for name, model in models.items()]
    return (
        *hosts,
        _moments(run, models),
        _layers(run, models, words),
        *_caches(run, models),
        Process("driver", {"driver": DRIVER}),
    )


def words_compared(run: RunFile, texts: Texts) -> int:
    """Words, which is about rows, of the shards that layers are compared on."""
    return sum(shard.words for shard in compared_shards(run, shards_of(run, texts.anchors)))


def host_name(model: str) -> str:
    """What the process that holds a model is called."""
    return f"host-{model}"


def host(
    name: str, model: Blueprint, dtype: str, words: int, adapts: Adapters | None = None
) -> Process:
    """The process that holds a whole model on a CPU, every layer of `words` rows being compared;
    if it `adapts`, adapters are trained in it, and solved for."""
    size = BYTES[dtype]
    row = model.width * _STREAM_COPIES + model.mlp_width * _MLP_COPIES
    parts = {
        "libraries": LIBRARIES + HOST_HEAP,
        "weights": model.parameters * size,
        "pass": TOKENS_A_PASS * row * size,
        "head": _HEAD_COPIES * ROWS_A_HEAD * model.vocabulary * BYTES["float32"],
        "activations": _activations(model, words) // 2,
    }
    if adapts:
        # What is kept of every layer to go back through, and logits with their gradients.
        kept = model.layers * row * size + _LOGIT_COPIES * model.vocabulary * BYTES["float32"]
        parts["training"] = examples.TOKENS_A_PASS * kept
        if adapts.solve:
            parts["solving"] = _solving(model)
    return Process(host_name(name), parts)


def _solving(model: Blueprint) -> int:
    """Of every matrix its gradient, and second moments of what it reads and of what it returns."""
    d, m = model.width, model.mlp_width
    heads, kv = model.heads * model.head_width, model.kv_heads * model.head_width
    reads = 2 * d**2 + heads**2 + m**2
    returns = heads**2 + 2 * kv**2 + 2 * d**2 + 2 * m**2
    gradients = d * (2 * heads + 2 * kv + 3 * m)
    return model.layers * BYTES["float32"] * (reads + returns + gradients)


def _moments(run: RunFile, models: dict[str, Blueprint]) -> Process:
    parts = {"libraries": LIBRARIES + FOLDER_HEAP, "fits": _fits(run, models)}
    return Process("folder-moments", parts)


def _fits(run: RunFile, models: dict[str, Blueprint]) -> int:
    """The moments of one pair in all folds, and what is worked out of them, in float64."""
    widths = sorted((model.width for model in models.values()), reverse=True)[:2]
    return sum(widths) ** 2 * 8 * (2 * run.anchors.folds + 4)


def _layers(run: RunFile, models: dict[str, Blueprint], words: int) -> Process:
    kept = sum(_activations(model, words) for model in models.values())
    some = sorted(models.values(), key=lambda model: model.layers * model.width)[-TOGETHER:]
    compared = sum(_activations(model, run.similarity.rows) for model in some)
    layers = sum(model.layers for model in some)
    grams = layers * 4 * (BLOCK_ROWS**2 + 2 * NULL_ROWS**2)
    return Process(
        "folder-layers",
        {
            "libraries": LIBRARIES + FOLDER_HEAP,
            "rows kept": kept,
            "rows compared": compared,
            "similarity": grams,
            "fits": _fits(run, models),
            "in flight": kept // max(1, run.cluster.in_flight),
        },
    )


def cache_folder(
    section: Caches, source: Blueprint | ModelFacts, target: Blueprint | ModelFacts
) -> Process:
    """The process that folds what two models cache, for one direction."""
    written, cells = (2 * of.layers * of.kv_heads * of.head_width for of in (source, target))
    inputs = 2 * source.layers * section.components + 2 * target.width
    characters = section.cached + section.judged
    texts = BATCH_TEXTS * sampled(section.texts * len(section.content))
    rows = texts * characters // 2  # hardly any token is shorter
    return Process(
        "folder-caches",
        {
            "libraries": LIBRARIES + FOLDER_HEAP,
            "sums": _SUMS * 8 * inputs * (inputs + cells),
            "rows kept": 2 * 4 * rows * (written + cells),  # and side by side
        },
    )


def _caches(run: RunFile, models: dict[str, Blueprint]) -> list[Process]:
    """That of the largest direction: where there is room for no more, one follows another."""
    if run.kv_cache is None:
        return []
    each = (cache_folder(run.kv_cache, *ends) for ends in permutations(models.values(), 2))
    return [max(each, key=lambda process: process.total)]


def _activations(model: Blueprint, rows: int) -> int:
    """Every layer of these rows, in float32."""
    return rows * model.layers * model.width * 4
