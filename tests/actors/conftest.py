"""Tiny random checkpoints of every supported family, with a tiny tokenizer: all built offline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from actors.anchors import AnchorBatch
from actors.engine import Engine, load

FAMILIES = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2")

SENTENCES = (
    "The ferry crosses the narrow strait twice a day.",
    "Nobody had told the gardener about the frost.",
    "She reads the old map slowly, and then folds it away again.",
    "Rain fell on the tin roof while the two brothers argued about the price of salt.",
    "A good lamp is worth more than a bad window.",
    "He was happy, she was sad, and the dog was merely hungry.",
)

_CONFIGS: dict[str, tuple[type[transformers.PretrainedConfig], dict[str, Any]]] = {
    "gemma": (transformers.GemmaConfig, {"head_dim": 16, "num_key_value_heads": 1}),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 16, "sliding_window": 8}),
    "gemma3_text": (
        transformers.Gemma3TextConfig,
        {
            "head_dim": 16,
            "sliding_window": 8,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"],
        },
    ),
    "llama": (transformers.LlamaConfig, {}),
    "mistral": (transformers.MistralConfig, {"sliding_window": 8}),
    "qwen2": (transformers.Qwen2Config, {}),
}


def write_tokenizer(directory: Path, *, first_token: bool) -> int:
    """A byte-level BPE trained on SENTENCES; returns how many tokens it has."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    if first_token:
        bpe.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 0)]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>")
    fast.save_pretrained(directory)
    return len(fast)


def write_checkpoint(directory: Path, family: str) -> Path:
    """Three layers, 32 wide, with weights large enough for every layer to matter."""
    vocabulary = write_tokenizer(directory, first_token=family.startswith("gemma"))
    config_class, more = _CONFIGS[family]
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    torch.manual_seed(FAMILIES.index(family))
    model = transformers.AutoModelForCausalLM.from_config(config_class(**(sizes | more)))
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() >= 2:
                weights.normal_(0, 0.2)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint directory of a family, built when it is first asked for."""
    built: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in built:
            built[family] = write_checkpoint(tmp_path_factory.mktemp(family), family)
        return built[family]

    return of


@pytest.fixture(scope="session", params=FAMILIES)
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Engine:
    """A live tiny model of each family in turn."""
    return load(checkpoint(request.param))


@pytest.fixture(scope="session")
def gpt_like(checkpoint: Callable[[str], Path]) -> Engine:
    """One model whose tokenizer puts nothing before a text."""
    return load(checkpoint("llama"))


@pytest.fixture
def sentences() -> tuple[str, ...]:
    """Texts of unlike lengths."""
    return SENTENCES


@pytest.fixture
def batch() -> AnchorBatch:
    """All SENTENCES, of unlike lengths."""
    return AnchorBatch(shard=2, index=5, texts=SENTENCES)
