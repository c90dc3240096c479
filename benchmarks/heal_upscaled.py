"""Makes the healing of SmolLM2 up-scaled from 30 to 44 blocks, in actors/derived/healing, again.

The up-scaled model is trained for some dozens of steps to say what its base says (the KL divergence
of their next tokens, on texts of three corpora), every matrix of the blocks after the first ones
being moved by a product of two thin ones. Those, and nothing else, are kept, in 16 bits. The blocks
that the two copies share at the start are already the base's, and are left as they are.

    python -m benchmarks.heal_upscaled
"""

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from actors.catalog import Derivation, ModelSpec
from actors.checkpoints import fingerprint
from actors.derived.upscaled import HEALING
from actors.engine import Engine, load
from actors.weights import default_cache, prepare
from benchmarks.texts import LEARNT, bits_per_character, texts
from jobs.config import read_run_file
from jobs.names import ROOT

RUN_FILE = Path("configs/demo.yaml")
DROP = 8
RANK = 4
STEPS = 72
ROWS, TOKENS = 4, 128  # of one step
RATE = 2e-3
WARM_UP = 10  # steps
THREADS = 2
PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


class Moved(nn.Module):
    """A projection [o, i] plus out [o, r] @ into [r, i], which starts as zero."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self.into = nn.Parameter(torch.randn(rank, inner.in_features) / inner.in_features**0.5)
        self.out = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] to [..., o]."""
        moved = functional.linear(functional.linear(x, self.into), self.out)
        return self.inner(x) + moved


def main() -> None:
    """Train, judge on dev texts, and write the file."""
    base = read_run_file(ROOT / RUN_FILE).models[0]
    checkpoint = prepare(base, default_cache(), print)
    made = Derivation(base=base, recipe="upscaled", options={"drop": DROP})
    upscaled = prepare(ModelSpec(name="upscaled", derived=made), default_cache(), print)
    teacher, student = load(checkpoint, threads=THREADS), load(upscaled, threads=THREADS)
    dev = [text for corpus in LEARNT.values() for text in texts(corpus, "dev")[:10]]
    before = {
        "base": bits_per_character(teacher, dev),
        "unhealed": bits_per_character(student, dev),
    }
    print(json.dumps(before))

    torch.manual_seed(0)
    moved = attach(student)
    train(teacher, student, [p for each in moved.values() for p in (each.into, each.out)])
    print(json.dumps({"healed": bits_per_character(student, dev)}))

    tensors = {}
    for name, each in moved.items():
        tensors[f"{name}.weight.out"] = each.out.detach().half()
        tensors[f"{name}.weight.in"] = each.into.detach().half()
    about = {"name": base.name, "base": fingerprint(checkpoint), "drop": DROP}
    HEALING.mkdir(exist_ok=True)
    file = HEALING / f"{base.name}-drop-{DROP}.safetensors"
    save_file(tensors, file, {"isthmus": json.dumps(about)})
    print(f"{file.name}: {file.stat().st_size / 2**20:.1f} MiB")


def attach(student: Engine) -> dict[str, Moved]:
    """Put a `Moved` in the place of every projection from block DROP on; by its name."""
    moved = {}
    for place in range(DROP, len(student.blocks)):
        for name in PROJECTIONS:
            projection = student.blocks[place].get_submodule(name)
            assert isinstance(projection, nn.Linear)
            each = moved[f"model.layers.{place}.{name}"] = Moved(projection, RANK)
            student.blocks[place].set_submodule(name, each)
    return moved


def train(teacher: Engine, student: Engine, parameters: list[nn.Parameter]) -> None:
    """Adam on the KL divergence of the student's next tokens from the teacher's."""
    optimiser = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.0)
    start = time.perf_counter()
    for step, ids in enumerate(_rows(teacher).split(ROWS)):
        for group in optimiser.param_groups:
            group["lr"] = RATE * _pace(step)
        with torch.inference_mode():
            wanted = _log_probabilities(teacher, ids)
        given = _log_probabilities(student, ids)
        loss = functional.kl_div(given, wanted.clone(), reduction="sum", log_target=True)
        loss = loss / ids.numel()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 10 == 0 or step == STEPS - 1:
            seconds = time.perf_counter() - start
            print(f"step {step}: {loss.item():.4f} nats per token, {seconds:.0f} s", flush=True)


def _log_probabilities(engine: Engine, ids: Tensor) -> Tensor:
    model: Any = engine.model
    return functional.log_softmax(model(ids, use_cache=False).logits, dim=-1)


def _pace(step: int) -> float:
    """A warm-up, then a cosine down to a twentieth."""
    fallen = 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
    return min(1.0, (step + 1) / WARM_UP) * (0.05 + 0.95 * fallen)


def _rows(teacher: Engine) -> Tensor:
    """Training texts in random order, end to end: [STEPS * ROWS, TOKENS]."""
    learnt = [text for corpus in LEARNT.values() for text in texts(corpus, "train")]
    random.Random(0).shuffle(learnt)
    needed = STEPS * ROWS * TOKENS
    ids: list[int] = []
    for text in learnt:
        if len(ids) >= needed:
            break
        ids += teacher.tokenizer(f"{text}\n\n")["input_ids"]
    return torch.tensor(ids[:needed]).view(-1, TOKENS)


if __name__ == "__main__":
    main()
