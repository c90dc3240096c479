"""One GGUF file to one checkpoint directory: config.json, tokenizer, model.safetensors in float32.

transformers dequantises and renames; what is added here is a refusal of what it would let pass in
silence (missing weights, weights that are not numbers), llama.cpp's own rule for the first token,
and a checkpoint that is no longer marked as quantised.
"""

import contextlib
import io
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from actors.architectures import ARCHITECTURES
from actors.catalog import ModelError
from actors.checkpoints import lacks
from actors.gguf_header import GgufHeader

# llama.cpp's names, where they are not the `model_type` of a config.json.
_FAMILIES = {"gemma3": "gemma3_text"}


def convert(file: Path, header: GgufHeader, directory: Path, label: str) -> None:
    """Write the checkpoint that a GGUF file holds into an existing directory.

    Takes about a minute for a vocabulary of 262,144, and memory for two copies in float32. `label`
    is what people call the file.

    Raises:
        ModelError: an architecture that is not known; weights missing, not finite, not readable.
    """
    if header.architecture not in _families():
        raise ModelError(
            f"{label} has the architecture {header.architecture!r}; "
            f"known in GGUF are: {', '.join(_families())}"
        )
    try:
        # The bars that transformers draws would fill the logs of actors; one cannot be turned off.
        with contextlib.redirect_stderr(io.StringIO()), _read_once():
            _convert_weights(file, directory, label)
            _convert_tokenizer(file, header, directory)
    except ModelError:
        raise
    except (ValueError, LookupError, RuntimeError, TypeError) as error:  # what damage leads to
        raise ModelError(f"{label} cannot be converted: {_first_line(error)}") from error


@contextlib.contextmanager
def _read_once() -> Generator[None]:
    """Let transformers parse the file once: it does so for configuration, weights and tokenizer.

    Half of the conversion's time goes there, a vocabulary being read token by token.
    """
    reader = gguf.GGUFReader
    gguf.GGUFReader = lru_cache(maxsize=1)(reader)  # pyrefly: ignore[bad-assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _convert_weights(file: Path, directory: Path, label: str) -> None:
    quantised, found = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
    )
    if found["missing_keys"]:
        raise ModelError(f"{label} {lacks(found['missing_keys'])}")
    for name, weight in quantised.state_dict().items():
        if not torch.isfinite(weight).all():
            raise ModelError(f"{label} is damaged: {name} has values that are not finite")

    config = quantised.config
    del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantised.generation_config
    model.save_pretrained(directory)


def _convert_tokenizer(file: Path, header: GgufHeader, directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(
        file.parent,
        gguf_file=file.name,
        add_bos_token=wants_bos(header),
        add_eos_token=bool(header.metadata.get("tokenizer.ggml.add_eos_token", False)),
        padding_side="right",
    )
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    # It is written down, and would be what HF_HUB_OFFLINE says: the same file, the same model.
    tokenizer.init_kwargs["local_files_only"] = False
    tokenizer.save_pretrained(directory)


def wants_bos(header: GgufHeader) -> bool:
    """Whether llama.cpp puts the first-token mark in front of a text for this file.

    As the file says; where it is silent, sentencepiece vocabularies get one.
    """
    sentencepiece = header.metadata.get("tokenizer.ggml.model") == "llama"
    wanted = header.metadata.get("tokenizer.ggml.add_bos_token", sentencepiece)
    return bool(wanted) and "tokenizer.ggml.bos_token_id" in header.metadata


def _families() -> list[str]:
    names = {family: name for name, family in _FAMILIES.items()}
    known = (names.get(family, family) for family in ARCHITECTURES)
    return sorted(name for name in known if name in GGUF_SUPPORTED_ARCHITECTURES)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
