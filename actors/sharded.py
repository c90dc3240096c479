"""A model over several ranks, by DeepSpeed: cut up (tensor parallel), or lent around (ZeRO).

Each rank is a process of its own that makes the same calls in the same order as the others and
comes to the same answers. A model that is cut up is never whole in any rank: it is built without
memory, cut, and each rank reads its slices.

Shapes: b texts, t tokens, d width of the residual stream, v vocabulary.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.integrations import HfDeepSpeedConfig

from actors.architectures import ARCHITECTURES
from actors.checkpoints import stored_tensors
from actors.module_tree import DTYPES, Whole, scores
from actors.slices import Range, Share, fill, lay_out, pieces
from cluster.world import World

# Before it is imported: it looks for an accelerator at once.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
import deepspeed.ops
from deepspeed.inference.engine import InferenceEngine
from deepspeed.module_inject.layers import (
    LinearAllreduce,
    LinearLayer,
    TensorParallel_Layer,
    set_autotp_mode,
)

# Its collectives in shared memory spin for ever when a peer dies, where gloo says so. They are also
# compiled at first, for a minute and more, and whoever is stopped then leaves a lock behind for
# which every later process waits.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

# How transformers keeps all experts of a block: which dimension has their neurons, how many times.
_EXPERTS = {"gate_up_proj": (1, 2), "down_proj": (2, 1)}


class ShardingError(ValueError):
    """A model that cannot lie over several ranks as asked; one line says why."""


class TensorParallel(Whole):
    """Of each block, a rank has some of the heads and some of the neurons."""

    def width(self, projection: nn.Module) -> int:
        return sum(_sizes(projection))

    def gather(self, part: Tensor, projection: nn.Module) -> Tensor:
        sizes = _sizes(projection)
        # Collectives want equal sizes: the smaller parts are filled up, and cut off again.
        filled = nn.functional.pad(part, (0, max(sizes) - part.shape[-1])).contiguous()
        parts = [torch.empty_like(filled) for _ in sizes]
        dist.all_gather(parts, filled)
        cut = (each[..., :size] for each, size in zip(parts, sizes, strict=True))
        return torch.cat(list(cut), dim=-1)

    def own(self, whole: Tensor, projection: nn.Module) -> Tensor:
        start, end = _range(_sizes(projection), dist.get_rank())
        return _Entering.apply(whole)[..., start:end]

    def score(self, head: nn.Module, states: Tensor, tokens: Tensor | None) -> Tensor:
        # The head is cut across what it reads: each rank scores with its part, and all are added.
        assert isinstance(head, LinearAllreduce)
        assert head.bias is None, "no family that can be cut has a bias in its head"
        return _Leaving.apply(scores(self.own(states, head), head.weight, None, tokens))

    @contextmanager
    def with_gradients(self) -> Iterator[None]:
        set_autotp_mode(training=True)  # DeepSpeed then adds no bias in place
        try:
            yield
        finally:
            set_autotp_mode(training=False)

    def agreed(self, number: float) -> float:
        device = deepspeed.get_accelerator().current_device_name()
        told = torch.tensor(number, dtype=torch.float64, device=device)
        dist.broadcast(told, 0)
        return told.item()


class Offloaded(Whole):
    """The weights lie in the ranks' host memory, and are brought to the device part by part."""

    stops_early = False  # the order in which parts are brought is learnt from whole passes

    def device(self, model: PreTrainedModel) -> torch.device:  # noqa: ARG002
        return torch.device(deepspeed.get_accelerator().current_device_name())

    def score(self, head: nn.Module, states: Tensor, tokens: Tensor | None) -> Tensor:
        found = head(states)
        return found if tokens is None else found[..., tokens]

    def with_gradients(self) -> AbstractContextManager[None]:
        raise ShardingError(
            "no gradients go through a model that is offloaded: its weights are gone when they "
            "come back; hold it whole or sharded"
        )


class _Entering(torch.autograd.Function):
    """What all ranks have, on its way into what each has a part of: f of arXiv 1909.08053.

    What flows back from a rank's part is a share of the gradient: all shares are added up.
    """

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> Tensor:  # noqa: ARG004
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *shares: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(shares[0])


class _Leaving(torch.autograd.Function):
    """The parts of all ranks added up: g of arXiv 1909.08053. Gradients pass as they are."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0]


def _sum(part: Tensor) -> Tensor:
    total = part.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def join(world: World) -> None:
    """Make this process a rank, for DeepSpeed too: over NCCL where it has a GPU, else over gloo.

    A process that is one already stays what it is.
    """
    if dist.is_initialized():
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # Each rank sees the one device that it was given. The store says the rest; DeepSpeed asks.
    os.environ |= {
        "RANK": str(world.rank),
        "WORLD_SIZE": str(world.ranks),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": world.place[0],
        "MASTER_PORT": str(world.place[1]),
    }
    if world.place[0] == "127.0.0.1":  # a Ray of one machine listens to nobody else
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    patience = timedelta(seconds=world.patience)
    dist.init_process_group(
        backend, store=world.store, rank=world.rank, world_size=world.ranks, timeout=patience
    )
    deepspeed.init_distributed(backend, timeout=patience, verbose=False)
    # Its own group would wait half an hour for a rank that hangs.
    InferenceEngine.inference_mp_group = dist.group.WORLD


def load_sharded(
    checkpoint: Path, dtype: str, world: World
) -> tuple[PreTrainedModel, TensorParallel]:
    """Over the ranks of `world`, heads and neurons shared out; each rank reads its slices.

    Raises:
        ShardingError: the family cannot be cut, or has fewer query heads than there are ranks.
        SliceError: the checkpoint is not of this model.
    """
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    join(world)
    model = cut(config, DTYPES[dtype], world.ranks, world.rank)
    layout = lay_out(stored_tensors(checkpoint), model)
    wanted = pieces(shares(model, world.ranks, world.rank), layout)
    parameters = dict(model.named_parameters())
    fill(parameters, wanted, checkpoint)
    _compute_buffers(model, parameters)
    for module in model.modules():
        if _experts(module):
            module.register_forward_pre_hook(_share_out)
            module.register_forward_hook(_add_up)
    return model, TensorParallel()


def load_offloaded(checkpoint: Path, dtype: str, world: World) -> tuple[PreTrainedModel, Offloaded]:
    """By ZeRO stage 3 (arXiv 2104.07857): every parameter is shared out over the ranks' host
    memory, and comes to the device when it is its turn. For models that no device can hold."""
    join(world)
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": {
            "stage": 3,
            "offload_param": {"device": "cpu", "pin_memory": torch.cuda.is_available()},
        },
    }
    told = HfDeepSpeedConfig(settings)  # transformers looks for it while it loads
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=DTYPES[dtype], local_files_only=True, use_safetensors=True
    )
    deepspeed.initialize(model=model, config=settings)  # it hooks itself into this same model
    del told
    return model, Offloaded()


def cut(config: PretrainedConfig, dtype: torch.dtype, ranks: int, rank: int) -> PreTrainedModel:
    """This rank's part of a model: its parameters have their sizes, and no values yet.

    Raises:
        ShardingError: see `load_sharded`.
    """
    _require_shardable(config, ranks)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for module in model.modules():
        if _experts(module):
            _cut_experts(module, ranks, rank)
    with redirect_stdout(StringIO()):  # it prints what it makes parallel
        engine = deepspeed.init_inference(
            model.eval().requires_grad_(False),
            # Neurons are shared out one by one: a part that is even is best, whatever its size.
            tensor_parallel={"tp_size": ranks, "tp_grain_size": 1},
            dtype=dtype,
            replace_with_kernel_inject=False,
        )
    return engine.module


def shares(model: PreTrainedModel, ranks: int, rank: int) -> dict[str, Share]:
    """What this rank holds of each parameter of a model that was cut."""
    found = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            found[full] = _share(module, name, parameter.shape, ranks, rank)
    return found


def _require_shardable(config: PretrainedConfig, ranks: int) -> None:
    known = ARCHITECTURES.get(config.model_type)
    if known is None or not known.shardable:
        can = ", ".join(sorted(name for name, each in ARCHITECTURES.items() if each.shardable))
        raise ShardingError(
            f"{config.model_type} models cannot be cut over {ranks} ranks; those that can: {can}"
        )
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    # With fewer KV heads than ranks, some ranks have no attention; without query heads, no sense.
    if heads < ranks:
        raise ShardingError(
            f"{heads} query heads ({kv_heads} KV heads) cannot be shared out over {ranks} ranks: "
            f"take at most {heads}"
        )


def _share(module: nn.Module, name: str, held: Sequence[int], ranks: int, rank: int) -> Share:
    shape = list(held)
    if isinstance(module, LinearAllreduce | LinearLayer):
        dim = 1 if isinstance(module, LinearAllreduce) else 0
        if dim == len(shape):  # what is added once all parts are together is not cut
            return Share.whole(shape)
        sizes = _sizes(module)
        shape[dim] = sum(sizes)
        return Share(tuple(shape), dim, (_range(sizes, rank),))
    assert not isinstance(module, TensorParallel_Layer), f"{type(module).__name__} is not known"
    if inner := _experts(module):
        dim, copies = _EXPERTS[name]
        shape[dim] = copies * inner
        start, end = _range(_even(inner, ranks), rank)
        ranges = [(copy * inner + start, copy * inner + end) for copy in range(copies)]
        return Share(tuple(shape), dim, tuple(ranges))
    return Share.whole(shape)


def _experts(module: nn.Module) -> int | None:
    """The neurons of one expert, where a module is what transformers keeps all experts in."""
    if set(module._parameters) != set(_EXPERTS):
        return None
    inner = module.intermediate_dim
    assert isinstance(inner, int)
    return inner


def _cut_experts(experts: nn.Module, ranks: int, rank: int) -> None:
    """Each expert keeps some of its neurons, as DeepSpeed does with those of a dense model."""
    for name, parameter in list(experts.named_parameters(recurse=False)):
        share = _share(experts, name, parameter.shape, ranks, rank)
        shape = list(share.shape)
        shape[share.dim] = sum(end - start for start, end in share.ranges)
        part = torch.empty(shape, dtype=parameter.dtype, device="meta")
        experts.register_parameter(name, nn.Parameter(part, requires_grad=False))


def _share_out(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """States and weights that a rank's neurons of the experts read, as all ranks have them."""
    return tuple(_Entering.apply(arg) if arg.is_floating_point() else arg for arg in args)


def _add_up(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    """What a rank's neurons of the experts add, to what all of them do."""
    return _Leaving.apply(output)


def _compute_buffers(model: PreTrainedModel, parameters: Mapping[str, Tensor]) -> None:
    """Give what no checkpoint holds, rotary frequencies and scales, the values of the family."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.fill_(torch.nan)
    for parameter in parameters.values():
        parameter._is_hf_initialized = True  # pyrefly: ignore[missing-attribute]
    model.initialize_weights()
    forgotten = [name for name, buffer in model.named_buffers() if buffer.isnan().any()]
    assert not forgotten, f"{forgotten} have no values"


def _sizes(module: nn.Module) -> tuple[int, ...]:
    """How what a module is cut along is shared out over the ranks."""
    assert isinstance(module, TensorParallel_Layer)
    return module._partition_sizes


def _even(size: int, ranks: int) -> tuple[int, ...]:
    return tuple(size // ranks + (rank < size % ranks) for rank in range(ranks))


def _range(sizes: Sequence[int], rank: int) -> Range:
    start = sum(sizes[:rank])
    return start, start + sizes[rank]
