"""Soft prompts as PEFT keeps them: what a model reads in place of the embeddings of tokens.

Shapes: k virtual tokens, d width of an embedding.
"""

from dataclasses import dataclass
from pathlib import Path

from peft import PromptTuningConfig
from safetensors.torch import save_file
from torch import Tensor

from actors.cargo.peft_files import WEIGHTS_FILE, AdapterError, matrix, read_config, read_tensors

KIND = "PROMPT_TUNING"
_ROWS = "prompt_embeddings"


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Rows [k, d] that a model reads before a text, float32. `base` is what the file calls the
    model it was made for."""

    rows: Tensor
    base: str | None = None


def read_prompt(directory: Path, width: int) -> SoftPrompt:
    """A PEFT directory, for a model whose embeddings are so wide.

    Raises:
        AdapterError: it is damaged, pickled, of another kind, or not of such a model.
    """
    config = read_config(directory, KIND)
    stored = read_tensors(directory)
    if list(stored) != [_ROWS]:
        raise AdapterError(
            f"{directory}: {WEIGHTS_FILE} holds {', '.join(stored) or 'nothing'}; a soft prompt is "
            f"{_ROWS} alone"
        )
    rows = matrix(directory, _ROWS, stored[_ROWS])
    if rows.shape[1] != width or not len(rows):
        raise AdapterError(
            f"{directory}: {len(rows)} rows of {rows.shape[1]} numbers; the model's embeddings "
            f"have {width}"
        )
    return SoftPrompt(rows, config.get("base_model_name_or_path"))


def write_prompt(prompt: SoftPrompt, directory: Path, base: str) -> None:
    """As a PEFT directory, for a model that PEFT is to call `base`."""
    count, width = prompt.rows.shape
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        num_virtual_tokens=count,
        token_dim=width,
        num_transformer_submodules=1,
        inference_mode=True,
    )
    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(directory))
    save_file({_ROWS: prompt.rows.contiguous()}, directory / WEIGHTS_FILE, {"format": "pt"})
