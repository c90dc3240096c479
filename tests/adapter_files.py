"""A small adapter in PEFT's files, to be tracked and pulled."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS = {"model.layers.0.self_attn.q_proj": (7, 5), "model.layers.1.mlp.down_proj": (5, 9)}


def save_adapter(directory: Path, rank: int = 2) -> dict[str, torch.Tensor]:
    """Write one, with a change of each layer; the changes [o, i] by layer."""
    directory.mkdir(parents=True)
    torch.manual_seed(1)
    tensors, changes = {}, {}
    for layer, (o, i) in LAYERS.items():
        up, down = torch.randn(o, rank), torch.randn(rank, i)
        tensors[f"base_model.model.{layer}.lora_A.weight"] = down
        tensors[f"base_model.model.{layer}.lora_B.weight"] = up
        changes[layer] = up @ down
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [*LAYERS]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return changes
