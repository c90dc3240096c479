"""Named places in a live model: read what passes there, add to it, and leave no hook behind.

Shapes: b rows of a batch, t tokens, d width of the residual stream, n injections.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from actors.engine import Engine

Kind = Literal["attention", "mlp", "residual"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order in which a block computes them


class SiteError(ValueError):
    """No such site, or nothing that fits there; one line says what is allowed."""


@total_ordering
@dataclass(frozen=True)
class Site:
    """What block `layer` leaves in the residual stream, or what a part of it adds to the stream.

    Sites are ordered as the forward pass reaches them.
    """

    kind: Kind
    layer: int

    @classmethod
    def parse(cls, text: str) -> "Site":
        """From `kind.layer`, for example `residual.12`; the first layer is 0."""
        kind, _, layer = text.partition(".")
        if kind not in KINDS or not (layer.isascii() and layer.isdigit()):
            raise SiteError(
                f"site {text!r}: write KIND.LAYER, where KIND is one of {', '.join(KINDS)} "
                "and LAYER counts from 0, for example residual.12"
            )
        return cls(cast(Kind, kind), int(layer))

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    def __lt__(self, other: "Site") -> bool:
        return (self.layer, KINDS.index(self.kind)) < (other.layer, KINDS.index(other.kind))


@dataclass(frozen=True, eq=False)
class Injection:
    """Add `strength` times `vector` [d] (float32) at every position of what passes at `site`."""

    site: str
    vector: np.ndarray
    strength: float

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all():
            raise SiteError(f"injection at {self.site}: the vector must be flat and finite")
        if not np.isfinite(self.strength):
            raise SiteError(f"injection at {self.site}: strength {self.strength} is not finite")


def is_live(injection: Injection | None) -> bool:
    """Whether it can change anything at all: strength 0 installs no hook."""
    return injection is not None and injection.strength != 0.0


@contextmanager
def reading(
    engine: Engine,
    sites: Sequence[Site],
    keep: Callable[[Tensor], Tensor] = torch.clone,
    *,
    stop: bool = False,
) -> Iterator[Mapping[Site, Tensor]]:
    """Fill a mapping with `keep` of what each site holds, [b, t, d], in the pass that runs inside.

    `keep` must copy what it returns. With `stop`, the pass ends at the highest site that is read,
    and the `with` block with it, as if it were done: nothing above costs anything.
    """
    found: dict[Site, Tensor] = {}
    last = max(sites) if stop and sites else None

    def record(site: Site) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            found[site] = keep(_stream(output))
            if site == last:
                raise _Enough

        return hook

    with ExitStack() as hooks:
        for site in dict.fromkeys(sites):
            handle = _module(engine, site).register_forward_hook(record(site))
            hooks.callback(handle.remove)
        try:
            yield found
        except _Enough:
            return


@contextmanager
def injecting(engine: Engine, injections: Sequence[Injection | None]) -> Iterator[None]:
    """Row i of every batch that runs inside takes injections[i]: one for each of the b rows.

    A row with None or strength 0 is left as it is, bit for bit; where there is no other row, no
    hook is installed. What is read at the same site holds the injection.
    """
    rows: dict[Site, list[int]] = {}
    for row, injection in enumerate(injections):
        if injection is not None and is_live(injection):
            rows.setdefault(Site.parse(injection.site), []).append(row)
    with ExitStack() as hooks:
        for site, live in rows.items():
            added = torch.zeros(len(injections), 1, engine.width)
            for row in live:
                added[row, 0] = _scaled(engine, injections[row])
            hook = _adder(added, None if len(live) == len(injections) else live)
            handle = _module(engine, site).register_forward_hook(hook, prepend=True)
            hooks.callback(handle.remove)
        yield


@contextmanager
def fanning_out(engine: Engine, injections: Sequence[Injection], b: int) -> Iterator[None]:
    """Of a batch of b rows inside, let n * b come out: row i * b + j is row j under injections[i].

    The blocks below the lowest injection run once for all. Only for batches without a padding mask.
    """
    lowest = min(Site.parse(injection.site) for injection in injections)
    copies = len(injections)

    def widen_output(_module: nn.Module, _args: object, output: object) -> object:
        return _with_stream(output, _stream(output).repeat(copies, 1, 1))

    def widen_input(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        return (args[0].repeat(copies, 1, 1), *args[1:]), kwargs

    def share_mask(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        # Without padding all rows have the same mask (causal, windowed): the first serves all.
        mask = kwargs.get("attention_mask")
        return args, kwargs if mask is None else kwargs | {"attention_mask": cast(Tensor, mask)[:1]}

    with injecting(engine, [each for each in injections for _ in range(b)]), ExitStack() as hooks:
        block = _module(engine, Site("residual", lowest.layer))
        if lowest.kind == "residual":
            handle = block.register_forward_hook(widen_output, prepend=True)
        else:
            handle = block.register_forward_pre_hook(widen_input, with_kwargs=True)
        hooks.callback(handle.remove)
        for above in engine.blocks[lowest.layer :]:
            handle = above.register_forward_pre_hook(share_mask, with_kwargs=True)
            hooks.callback(handle.remove)
        yield


class _Enough(Exception):
    """The highest site has been read."""


def _module(engine: Engine, site: Site) -> nn.Module:
    if not 0 <= site.layer < len(engine.blocks):
        raise SiteError(f"site {site}: this model has layers 0 to {len(engine.blocks) - 1}")
    block = engine.blocks[site.layer]
    if site.kind == "residual":
        return block
    path = engine.architecture.attention if site.kind == "attention" else engine.architecture.mlp
    return block.get_submodule(path)


def _stream(output: object) -> Tensor:
    """The [b, t, d] part of what a module returns (attention returns its weights beside it)."""
    stream = output[0] if isinstance(output, tuple) else output
    assert isinstance(stream, Tensor)
    return stream


def _with_stream(output: object, stream: Tensor) -> object:
    return (stream, *output[1:]) if isinstance(output, tuple) else stream


def _scaled(engine: Engine, injection: Injection | None) -> Tensor:
    assert injection is not None
    if len(injection.vector) != engine.width:
        raise SiteError(
            f"injection at {injection.site}: the vector has {len(injection.vector)} numbers, "
            f"this model's residual stream has {engine.width}"
        )
    return torch.from_numpy(injection.strength * injection.vector.astype(np.float32))


def _adder(added: Tensor, live: list[int] | None) -> Callable[[nn.Module, object, object], object]:
    def hook(_module: nn.Module, _args: object, output: object) -> object:
        stream = _stream(output)
        if len(stream) != len(added):
            raise SiteError(f"{len(added)} injections for a batch of {len(stream)} rows")
        if live is None:
            return _with_stream(output, stream + added.to(stream.dtype))
        changed = stream.clone()
        changed[live] += added[live].to(stream.dtype)
        return _with_stream(output, changed)

    return hook
