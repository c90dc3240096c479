"""Tiny random checkpoints of every supported family, with a tiny tokenizer: all built offline.

The libraries of models are imported when a checkpoint is built: many tests need none.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

SENTENCES = (
    "The ferry crosses the narrow strait twice a day.",
    "Nobody had told the gardener about the frost.",
    "She reads the old map slowly, and then folds it away again.",
    "Rain fell on the tin roof while the two brothers argued about the price of salt.",
    "A good lamp is worth more than a bad window.",
    "He was happy, she was sad, and the dog was merely hungry.",
)

# Configuration class, and what is unlike the others.
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
    family: str,
    sentences: Sequence[str] = SENTENCES,
    tokens: int = 400,
    width: int = 32,
) -> Path:
    """Three layers, with weights large enough for every layer to matter."""
    import torch
    import transformers

    first = family.startswith("gemma")
    vocabulary = write_tokenizer(directory, first_token=first, sentences=sentences, size=tokens)
    name, more = _CONFIGS[family]
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
    config = getattr(transformers, name)(**(sizes | more))
    torch.manual_seed(list(_CONFIGS).index(family))
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() >= 2:
                weights.normal_(0, 0.2)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def new_checkpoint() -> Callable[..., Path]:
    """Build a checkpoint: `write_checkpoint`."""
    return write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint directory of a family, built when it is first asked for."""
    built: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in built:
            built[family] = write_checkpoint(tmp_path_factory.mktemp(family), family)
        return built[family]

    return of


@pytest.fixture
def sentences() -> tuple[str, ...]:
    """Texts of unlike lengths."""
    return SENTENCES
