"""Maps from all that a source caches of a token to all that a target does, and their sums.

Every layer of the target reads every layer of the source, or one alone. What all layers read is
reduced first, site by site, to the main components of its standardised features, so that sums and
map stay small for models of any depth.

Shapes: n rows, d width of a site, c components of it, D components of all inputs together, T width
of all outputs together, r rank.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from alignment.four_bits import packed, unpacked
from alignment.maps import Affine, Linear, LowRank, MapError
from alignment.maps.base import split_record, with_record
from alignment.moments import Sums, cross_moment

FORMAT = 1
RECORD_FILE, WEIGHTS_FILE = "cache_map.json", "cache_map.safetensors"
Bits = Literal[32, 16, 4]  # of a number that is stored


@dataclass(frozen=True, eq=False)
class Reduction:
    """Rows of one input about their mean [d], times one over the spread of each feature [d]; by
    its main components [c, d], or all features where there is no basis.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None = None

    @classmethod
    def of(cls, rows: Tensor, components: int | None = None) -> Reduction:
        """To the main components of rows [n, d], each feature taken in units of its own spread.

        Without a number of components every feature stays.
        """
        mean, spread = rows.double().mean(0), rows.double().std(0)
        scale = torch.where(spread > 0, 1 / spread, 0.0)  # what never changes tells nothing
        if components is None:
            return cls(mean.float(), scale.float())
        near = (rows.double() - mean) * scale
        _, vectors = torch.linalg.eigh(near.mT @ near)
        basis = vectors.flip(1)[:, :components].mT
        return cls(mean.float(), scale.float(), basis.float().contiguous())

    @property
    def width(self) -> int:
        """How many numbers are left: c, or d."""
        return len(self.scale if self.basis is None else self.basis)

    def in_units(self, units: Tensor) -> Reduction:
        """The same with each number that is left in a unit of its own [c]."""
        if self.basis is None:
            return Reduction(self.mean, (self.scale / units).float())
        return Reduction(self.mean, self.scale, (self.basis / units[:, None]).float())

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        found = {"mean": self.mean, "scale": self.scale}
        return found if self.basis is None else found | {"basis": self.basis}

    def __call__(self, points: Tensor) -> Tensor:
        near = (points - self.mean) * self.scale
        return near if self.basis is None else near @ self.basis.mT


@dataclass(frozen=True, eq=False)
class CacheMoments(Sums):
    """Sums over rows of reduced inputs [n, D] and of cells [n, T], of yy its diagonal alone [T]."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weights: Tensor | None = None) -> CacheMoments:
        """Of rows weighted by weights [n], or all alike."""
        each = torch.ones(len(x)) if weights is None else weights
        each = each.double()
        return cls(
            float(each.sum()),
            each @ x.double(),
            each @ y.double(),
            cross_moment(x, x, weights),
            cross_moment(x, y, weights),
            each @ y.double().square(),
        )

    def of_inputs(self, which: Tensor) -> CacheMoments:
        """The same rows with some of the inputs only, by their indices [D']."""
        xx, xy = self.xx[which][:, which], self.xy[which]
        return CacheMoments(self.count, self.sum_x[which], self.sum_y, xx, xy, self.yy)

    def of_outputs(self, some: slice) -> CacheMoments:
        """The same rows with some of the outputs only."""
        return replace(self, sum_y=self.sum_y[some], xy=self.xy[:, some], yy=self.yy[some])

    @staticmethod
    def _squares(one: Tensor, other: Tensor) -> Tensor:
        return one * other


@dataclass(frozen=True, eq=False)
class CacheMap:
    """Inputs by name, reduced and side by side, to the cells of every site of the target.

    `reductions` are by input, in the order in which they lie side by side; `writes` are the widths
    of the target's sites, in the order of the outputs of `map`. The sites of `near` are not among
    these: each is written from one layer of the source alone, by a map of its own.
    """

    reductions: Mapping[str, Reduction]
    map: Linear
    writes: Mapping[str, int]
    near: Mapping[str, CacheMap] = field(default_factory=dict)

    @property
    def reads(self) -> dict[str, int]:
        """The width of every input."""
        every = [self, *self.near.values()] if self.writes else list(self.near.values())
        return {name: len(of.mean) for each in every for name, of in each.reductions.items()}

    def reduced(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs [n, d] by name to [n, D]."""
        return torch.cat([of(inputs[name]) for name, of in self.reductions.items()], dim=-1)

    def transform(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs [n, d] by name to the target's cells [n, d] by site."""
        found: dict[str, Tensor] = {}
        if self.writes:
            points = self.map.transform(self.reduced(inputs))
            parts = points.split(list(self.writes.values()), dim=-1)
            found = dict(zip(self.writes, parts, strict=True))
        for each in self.near.values():
            found |= each.transform(inputs)
        return found

    def to_bytes(self, bits: Bits = 32) -> bytes:
        """A safetensors file that holds everything; with 32 bits a bitwise round trip.

        With 16, numbers are kept in float16; with 4, so are those of vectors, and matrices as
        `alignment.four_bits` says.
        """
        tensors, record = self._parts()
        for site, each in self.near.items():
            of_it, record["near"][site] = each._parts()
            tensors |= {f"near.{site}.{name}": tensor for name, tensor in of_it.items()}
        in_four = {n: of for n, of in tensors.items() if bits == 4 and of.ndim == 2}
        kept = {name: of.half() if bits < 32 else of for name, of in tensors.items()}
        for name, of in in_four.items():
            del kept[name]
            kept[f"pairs.{name}"], kept[f"units.{name}"] = packed(of)
        record |= {
            "format": FORMAT,
            "near_formula": "for each site of near the same with near.SITE.NAME for NAME",
            "four_bits": {name: list(of.shape) for name, of in in_four.items()},
            "four_bits_formula": "number = units (one for 64) * (low half of a byte - 8, then its "
            "high half - 8)",
        }
        return with_record(kept, record)

    def _parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is stored of the map but for `near`, and what it is."""
        tensors = {f"map.{name}": tensor for name, tensor in self.map.tensors().items()}
        for name, each in self.reductions.items():
            tensors |= {f"{part}.{name}": of for part, of in each.tensors().items()}
        return tensors, {
            "kind": self.map.kind,
            "reads": list(self.reductions),
            "writes": list(self.writes.items()),
            "formula": "x = concat over reads of (input - mean.NAME) * scale.NAME, @ basis.NAME.T "
            f"where there is one; with map.: {self.map.formula}",
            "near": {},
        }

    def save(self, directory: Path, bits: Bits = 32) -> None:
        """Write cache_map.safetensors, and cache_map.json, which says what it is."""
        weights = self.to_bytes(bits)
        _, record = split_record(weights)
        about = {**record, "kind": "cache", "map": self.map.kind, "bits": bits}
        about["sha256"] = hashlib.sha256(weights).hexdigest()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / WEIGHTS_FILE).write_bytes(weights)
        (directory / RECORD_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> CacheMap:
        """Read what `to_bytes` wrote. MapError when it is not such a file."""
        stored, record = split_record(data)
        if record.get("format") != FORMAT or not {"near", "four_bits"} <= record.keys():
            raise MapError("this file holds no map of caches that this version can read")
        tensors = {name: tensor.float() for name, tensor in stored.items()}
        for name, shape in record["four_bits"].items():
            tensors[name] = unpacked(stored[f"pairs.{name}"], stored[f"units.{name}"], shape)
        near = {
            site: cls._from(tensors, of, f"near.{site}.") for site, of in record["near"].items()
        }
        return replace(cls._from(tensors, record, ""), near=near)

    @classmethod
    def _from(cls, tensors: Mapping[str, Tensor], record: Mapping[str, Any], at: str) -> CacheMap:
        kinds: dict[str, type[Linear]] = {each.kind: each for each in (Affine, LowRank)}
        start = f"{at}map."
        of_map = {n.removeprefix(start): of for n, of in tensors.items() if n.startswith(start)}
        reductions = {
            name: Reduction(
                tensors[f"{at}mean.{name}"],
                tensors[f"{at}scale.{name}"],
                tensors.get(f"{at}basis.{name}"),
            )
            for name in record["reads"]
        }
        return cls(reductions, kinds[record["kind"]](**of_map), dict(record["writes"]))
