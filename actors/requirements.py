"""What a soft prompt requires of a model, tried on the live model itself.

Shapes: t tokens, d width of an embedding, v vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor

from actors.encoding import encode
from actors.engine import Engine

TEXT = "The ferry crosses the narrow strait twice a day, and nobody asks what it carries."
EQUAL = 1e-3  # of the spread of logits: what rounding may make of the same sum


@dataclass(frozen=True)
class Requirement:
    """One thing that is required, whether the model has it, and what was found."""

    name: str
    met: bool
    found: str


def requirements(engine: Engine) -> tuple[Requirement, ...]:
    """Everything that a soft prompt requires; nothing of the model is changed."""
    return tuple(_tried(engine))


def _tried(engine: Engine) -> Iterator[Requirement]:
    ids = encode(engine, [TEXT]).ids
    with torch.no_grad():
        read, plain = engine.embeddings(ids), engine.model(input_ids=ids).logits[0]
        off = _apart(engine.model(inputs_embeds=read).logits[0], plain)
    yield Requirement(
        "inputs_embeds",
        off <= EQUAL,
        f"logits are those of the same tokens within {off:.0e} of their spread",
    )
    yield _frozen(engine, read)
    yield _padding(engine, ids, plain)
    yield from _tokenizer(engine)
    size = read.float().square().mean().sqrt()
    yield Requirement(
        "embeddings", True, f"root mean square {size:.3g}, which latents have to meet"
    )


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().std())


def _frozen(engine: Engine, read: Tensor) -> Requirement:
    """Whether a gradient reaches what is read, and none the weights."""
    soft = read.detach().clone().requires_grad_()
    with engine.held.with_gradients(), torch.enable_grad():
        engine.model(inputs_embeds=soft).logits.float().logsumexp(-1).sum().backward()
    slope = soft.grad
    reached = slope is not None and bool(slope.isfinite().all() and slope.any())
    kept = all(each.grad is None for each in engine.model.parameters())
    said = "a gradient reaches what is read" if reached else "no gradient reaches what is read"
    return Requirement("frozen", reached and kept, said + (", none the weights" if kept else ""))


@torch.no_grad()
def _padding(engine: Engine, ids: Tensor, plain: Tensor) -> Requirement:
    """Whether what is masked on the left changes nothing."""
    empty = ids.new_zeros(len(ids), 5)
    padded = torch.cat([empty, ids], 1)
    there = torch.cat([empty, torch.ones_like(ids)], 1)
    read = {"inputs_embeds": engine.embeddings(padded), "attention_mask": there}
    if "position_ids" in signature(engine.model.forward).parameters:  # ALiBi has none
        read["position_ids"] = (there.cumsum(1) - 1).clamp_min(0)
    out = engine.model(**read)
    off = _apart(out.logits[0, 5:], plain)
    return Requirement("padding", off <= EQUAL, f"on the left it changes {off:.0e} of the spread")


def _tokenizer(engine: Engine) -> Iterator[Requirement]:
    known = engine.tokenizer
    named = {"begins": known.bos_token, "ends": known.eos_token, "pads": known.pad_token}
    said = ", ".join(f"{name} {token}" for name, token in named.items() if token)
    yield Requirement("special tokens", known.eos_token is not None, said or "none")
    has = known.chat_template is not None
    yield Requirement(
        "chat template", True, "its own" if has else "none: prompts go in as they are"
    )
