"""What `isthmus plan` says that one GPU must hold of a model, beside what it then holds.

Models of the catalog with drawn weights, in bfloat16: how much memory a pass takes does not depend
on what the weights are. Each reads as many texts at once as a run does, the whole vocabulary is
scored after the last token of each, and its cache is kept. Needs a GPU.

    python -m benchmarks.gpu_footprint [MODEL ...]
"""

import gc
import sys
import time
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from actors.architectures import ARCHITECTURES
from actors.fleet import find
from actors.module_tree import ModuleTree
from benchmarks.record import record
from cluster.placement import GIB
from jobs.footprint import footprint
from jobs.placing import BATCH_TOKENS

MODELS = ("qwen2.5-1.5b", "phi-3-mini-4k", "mistral-7b", "qwen2.5-7b", "llama-3-8b", "solar-10.7b")
ROWS = 32  # texts
PASSES = 5


def main() -> None:
    """Measure, print and record."""
    if not torch.cuda.is_available():
        raise SystemExit("gpu_footprint: there is no GPU here")
    measured = {name: _measured(name) for name in sys.argv[1:] or MODELS}
    record(
        "gpu_footprint",
        {
            "asked": {"predicted over measured peak memory": "0.85 to 1.15"},
            "texts": ROWS,
            "tokens": BATCH_TOKENS,
            "models": measured,
        },
    )


def _measured(name: str) -> dict[str, Any]:
    known = find(name).blueprint
    predicted = footprint(known, dtype="bfloat16", tokens=BATCH_TOKENS, rows=ROWS)
    torch.cuda.reset_peak_memory_stats()
    tree = _drawn(name)
    weights = torch.cuda.memory_allocated()
    ids = torch.randint(1000, (ROWS, BATCH_TOKENS), device="cuda")
    took = [_pass(tree, ids) for _ in range(PASSES)]
    peak = torch.cuda.max_memory_allocated()
    del tree
    gc.collect()
    torch.cuda.empty_cache()
    found = {
        "weights_gib": {"predicted": predicted.weights / GIB, "measured": weights / GIB},
        "peak_gib": {"predicted": predicted.total / GIB, "measured": peak / GIB},
        "predicted_over_measured": predicted.total / peak,
        "tokens_per_second": ids.numel() / min(took),
    }
    print(name, found, file=sys.stderr)
    return found


def _drawn(name: str) -> ModuleTree:
    config = AutoConfig.for_model(**(find(name).config or {}))
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval().requires_grad_(False)
    return ModuleTree(model, ARCHITECTURES[config.model_type])


@torch.inference_mode()
def _pass(tree: ModuleTree, ids: torch.Tensor) -> float:
    torch.cuda.synchronize()
    started = time.monotonic()
    run = tree.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    run.logits.float()
    torch.cuda.synchronize()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
