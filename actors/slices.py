"""What a rank reads of a checkpoint's files when it holds part of a model: its part, and no more.

A parameter may be spread over many stored tensors (experts are stored one by one, and held as one);
how is taken from the conversions that transformers itself applies. Everything here is arithmetic on
shapes, so that it serves a checkpoint on disk and one that is only planned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from actors.checkpoints import Stored, lacks

Range = tuple[int, int]
Box = tuple[Range, ...]  # one range for each dimension
Layout = dict[str, list[tuple[Stored, Box]]]  # of each parameter, the tensors that make it

CHUNK_BYTES = 64 * 2**20  # of a stored tensor that are read at once


class SliceError(ValueError):
    """A checkpoint that cannot be read in slices; one line says which tensor, and why."""


@dataclass(frozen=True)
class Share:
    """What a rank holds of a parameter of `shape`: `ranges` along `dim`, one after the other."""

    shape: tuple[int, ...]
    dim: int
    ranges: tuple[Range, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Share":
        """All of it."""
        return cls(tuple(shape), 0, ((0, shape[0] if shape else 1),))


@dataclass(frozen=True)
class Piece:
    """What of one stored tensor goes where in what a rank holds of a parameter."""

    parameter: str
    stored: Stored
    source: Box
    target: Box

    @property
    def bytes(self) -> int:
        """Read from the file."""
        return prod(end - start for start, end in self.source) * self.stored.itemsize


def pieces(shares: Mapping[str, Share], layout: Layout) -> list[Piece]:
    """Everything that a rank with these shares reads of a checkpoint that is laid out so.

    Raises:
        SliceError: a parameter is not in the checkpoint, or has another shape there.
    """
    if missing := shares.keys() - layout.keys():
        raise SliceError(f"the checkpoint {lacks(missing)}")
    found: list[Piece] = []
    for name, share in shares.items():
        parts = layout[name]
        covered = tuple(max(box[dim][1] for _, box in parts) for dim in range(len(share.shape)))
        if covered != share.shape:
            raise SliceError(f"{name} is {covered} in the checkpoint, and {share.shape} here")
        found += _of_share(name, share, parts)
    return found


def fill(parameters: Mapping[str, Tensor], wanted: Iterable[Piece], checkpoint: Path) -> None:
    """Read the pieces into the parameters of a rank, a bounded number of bytes at a time."""
    by_file: dict[str, list[Piece]] = {}
    for piece in wanted:
        by_file.setdefault(piece.stored.file, []).append(piece)
    for file, of in by_file.items():
        with safe_open(checkpoint / file, "pt") as opened, torch.no_grad():
            for piece in of:
                lazy = opened.get_slice(piece.stored.key)
                held = parameters[piece.parameter].data[_slices(piece.target)]
                held = held.view(held.shape[-len(piece.source) :])
                for start, end in _chunks(piece):
                    source = ((start, end), *piece.source[1:])
                    at = start - piece.source[0][0]
                    held[at : at + end - start].copy_(lazy[_slices(source)])


def lay_out(stored: Iterable[Stored], model: PreTrainedModel) -> Layout:
    """Where the stored tensors lie in each parameter; `model` has the names, on any device.

    A head that is tied to the embedding is read from there, where the checkpoint does not have it.

    Raises:
        SliceError: a parameter is made of what is stored in a way that cannot be read in slices.
    """
    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    names, prefix = model.state_dict(), model.base_model_prefix
    layout: Layout = {}
    merged: dict[str, dict[str, list[Stored]]] = {}
    for tensor in stored:
        name, pattern = rename_source_key(tensor.key, renamings, converters, prefix, names)
        if pattern is None:
            layout[name] = [(tensor, tuple((0, size) for size in tensor.shape))]
        else:
            merged.setdefault(name, {}).setdefault(pattern, []).append(tensor)
    for name, by in merged.items():
        layout[name] = _merged(name, by, by_pattern[next(iter(by))])
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    return {name: layout[like] for name, like in tied.items() if like in layout} | layout


def _merged(
    name: str, by_pattern: dict[str, list[Stored]], converter: WeightConverter
) -> list[tuple[Stored, Box]]:
    """Lists of tensors, each stacked, and the stacks side by side: experts, as they are held."""
    match converter.operations:
        case [MergeModulelist(dim=0)]:
            side = 1
        case [MergeModulelist(dim=0), Concatenate(dim=side)] if side > 0:
            pass
        case _:
            raise SliceError(f"{name} is made of other tensors in a way that has no slices")
    parts: list[tuple[Stored, Box]] = []
    start = 0
    for pattern in converter.source_patterns:
        listed = sorted(by_pattern.get(pattern, ()), key=lambda each: dot_natural_key(each.key))
        if not listed:
            raise SliceError(f"{name}: the checkpoint has nothing called {pattern}")
        end = start + listed[0].shape[side - 1]
        for number, tensor in enumerate(listed):
            box: list[Range] = [(number, number + 1), *((0, size) for size in tensor.shape)]
            box[side] = (start, end)
            parts.append((tensor, tuple(box)))
        start = end
    return parts


def _of_share(name: str, share: Share, parts: list[tuple[Stored, Box]]) -> list[Piece]:
    starts = list(accumulate((end - start for start, end in share.ranges), initial=0))
    found = []
    for (low, high), (at, _) in zip(share.ranges, pairwise(starts), strict=True):
        for tensor, box in parts:
            start, end = max(low, box[share.dim][0]), min(high, box[share.dim][1])
            if start >= end:
                continue
            inside = list(box)
            inside[share.dim] = (start, end)
            target = list(inside)
            target[share.dim] = (at + start - low, at + end - low)
            source = [
                (begin - outer, stop - outer)
                for (begin, stop), (outer, _) in zip(inside, box, strict=True)
            ]
            # A tensor of a list has one dimension less than the list.
            source = source[len(box) - len(tensor.shape) :]
            found.append(Piece(name, tensor, tuple(source), tuple(target)))
    return found


def _chunks(piece: Piece) -> Iterable[Range]:
    start, end = piece.source[0]
    rows = max(1, CHUNK_BYTES * (end - start) // max(1, piece.bytes))
    return ((at, min(at + rows, end)) for at in range(start, end, rows))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)
