"""Tiny random checkpoints of every supported family, with a tiny tokenizer: all built offline.

The libraries of models are imported when a checkpoint is built: many tests need none.
"""

import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from cluster.placement import ClusterFacts
from cluster.session import session
from tests.object_server import Ceph, Gateway

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("isthmus", deadline=None)
settings.load_profile("isthmus")

_STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long-within",
        type=float,
        metavar="MINUTES",
        help="begin no test that is marked long after this; they come last",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones last, and their files in another order each day: all have their turn."""
    files = sorted({item.path for item in items})
    random.Random(date.today().toordinal()).shuffle(files)
    turn = {path: number for number, path in enumerate(files, 1)}
    items.sort(key=lambda item: turn[item.path] if item.get_closest_marker("long") else 0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    within: float | None = item.config.getoption("--long-within")
    if within is None or item.get_closest_marker("long") is None:
        return
    if time.monotonic() - _STARTED > 60 * within:
        pytest.skip(f"no long test is begun after {within:g} minutes")


SENTENCES = (
    "The ferry crosses the narrow strait twice a day.",
    "Nobody had told the gardener about the frost.",
    "She reads the old map slowly, and then folds it away again.",
    "Rain fell on the tin roof while the two brothers argued about the price of salt.",
    "A good lamp is worth more than a bad window.",
    "He was happy, she was sad, and the dog was merely hungry.",
)

# Of families whose heads each have a key and a value of their own, or that count them otherwise.
_OWN_HEADS: dict[str, Any] = {"num_key_value_heads": None, "intermediate_size": None}

# By case: the configuration class, and what is unlike the others; None is left out. A case is
# called by its family, or by its family and what is special about it.
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", {"head_dim": 16, "num_key_value_heads": 1}),
    "gemma2": ("Gemma2Config", {"head_dim": 16, "sliding_window": 8}),
    "gemma3_text": (
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "sliding_window": 8,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"],
        },
    ),
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": 8}),
    "qwen2": ("Qwen2Config", {}),
    "bloom": ("BloomConfig", _OWN_HEADS | {"max_position_embeddings": None, "seq_length": 128}),
    # As 7B, with one KV head; as RW-1B, with ALiBi and without a parallel block; as 40B and 180B.
    "falcon": ("FalconConfig", _OWN_HEADS | {"multi_query": True}),
    "falcon_alibi": (
        "FalconConfig",
        _OWN_HEADS | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "falcon_grouped": (
        "FalconConfig",
        _OWN_HEADS | {"new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "gpt2": ("GPT2Config", _OWN_HEADS | {"n_inner": 64}),
    "gpt_neox": ("GPTNeoXConfig", {"num_key_value_heads": None, "rotary_pct": 0.5}),
    "llama_yarn": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "olmo2": ("Olmo2Config", {}),
    "phi3": ("Phi3Config", {}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
}


def write_tokenizer(
    directory: Path, *, first_token: bool, sentences: Sequence[str], size: int
) -> int:
    """A byte-level BPE trained on the sentences; returns how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sentences, trainer)
    if first_token:
        bpe.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 0)]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>")
    fast.save_pretrained(directory)
    return len(fast)


def write_checkpoint(
    directory: Path,
    case: str,
    sentences: Sequence[str] = SENTENCES,
    tokens: int = 400,
    width: int = 32,
) -> Path:
    """Three layers, with weights large enough for every layer to matter."""
    import torch
    import transformers

    first = case.startswith("gemma")
    vocabulary = write_tokenizer(directory, first_token=first, sentences=sentences, size=tokens)
    name, more = _CONFIGS[case]
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    given = {key: value for key, value in (sizes | more).items() if value is not None}
    config = getattr(transformers, name)(**given)
    torch.manual_seed(list(_CONFIGS).index(case))
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() >= 2:
                weights.normal_(0, 0.2)
        # Gains and biases too, after all else: what forgets one of them must not pass unseen.
        for weights in model.parameters():
            if weights.dim() == 1:
                weights.add_(0.2 * torch.randn_like(weights))
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def new_checkpoint() -> Callable[..., Path]:
    """Build a checkpoint: `write_checkpoint`."""
    return write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint directory of a case, built when it is first asked for."""
    built: dict[str, Path] = {}

    def of(case: str) -> Path:
        if case not in built:
            built[case] = write_checkpoint(tmp_path_factory.mktemp(case), case)
        return built[case]

    return of


@pytest.fixture(scope="session")
def cases() -> tuple[str, ...]:
    """The names of all tiny models."""
    return tuple(_CONFIGS)


@pytest.fixture(scope="session", params=sorted(_CONFIGS))
def case(request: pytest.FixtureRequest) -> str:
    """Each tiny model in turn, by name."""
    return request.param


@pytest.fixture
def sentences() -> tuple[str, ...]:
    """Texts of unlike lengths."""
    return SENTENCES


@pytest.fixture(scope="module")
def local_ray() -> Generator[ClusterFacts]:
    """One small local Ray for the tests of a file; verbs in other files open their own."""
    with session("local", num_cpus=3, object_store_mib=80) as facts:
        yield facts


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A real object store behind gateways that tests start."""
    running = Ceph(tmp_path_factory.mktemp("ceph"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def gateway(ceph: Ceph) -> Gateway:
    """A gateway that speaks S3 and that nobody kills."""
    return Gateway(ceph)
