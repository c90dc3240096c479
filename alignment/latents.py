"""A text as a few latents, and what each of several models reads of them.

A Perceiver resampler (Jaegle et al. 2021, arXiv 2103.03206) makes K latents of any number of rows,
whatever their width, vocabulary or positions were. What a model reads in place of embeddings is
projected from them, and has the statistics of its own embeddings.

Shapes: b texts, t rows of a text, i their width, k latents, w their width, d width of an embedding.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from alignment.maps import MapError
from alignment.maps.base import split_record, with_record

FORMAT = "isthmus latents 1"


@dataclass(frozen=True)
class LatentShape:
    """`count` latents of `width`, which `blocks` of attention with `heads` read off rows as wide as
    `inputs`."""

    inputs: int
    count: int = 16
    width: int = 256
    blocks: int = 2
    heads: int = 4
    dropout: float = 0.1


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and standard deviation of each number of many rows, both [i] or [d]."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "Spread":
        """That of rows [n, d]."""
        return cls(rows.mean(0), rows.std(0))


class Resampler(nn.Module):
    """From rows [b, t, i] to latents [b, k, w]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: LatentShape, rows: Spread) -> None:
        """`rows` is what rows are like: they are standardised by it.

        A number that was the same in all of them, but for rounding, says nothing of others either.
        """
        super().__init__()
        varies = rows.deviation > rows.mean.abs() * 4 * torch.finfo(rows.mean.dtype).eps
        self.register_buffer("mean", rows.mean.clone())
        self.register_buffer("deviation", rows.deviation.where(varies, torch.inf))
        self.queries = nn.Parameter(torch.randn(shape.count, shape.width) * shape.width**-0.5)
        self.project = nn.Sequential(
            nn.Linear(shape.inputs, shape.width), nn.LayerNorm(shape.width)
        )
        block = nn.TransformerDecoderLayer(
            shape.width,
            shape.heads,
            4 * shape.width,
            shape.dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerDecoder(block, shape.blocks, nn.LayerNorm(shape.width))

    def forward(self, rows: Tensor, there: Tensor) -> Tensor:
        """`there` is where rows are, bool [b, t]; what fills up the rest is not looked at."""
        read = self.project((rows - self.mean) / self.deviation)
        queries = self.queries.expand(len(rows), *self.queries.shape)
        return self.blocks(queries, read, memory_key_padding_mask=~there)


class Reader(nn.Module):
    """From latents [b, k, w] to what one model reads, [b, k, d].

    Which latent it is, and how long the text was, is told it besides. It begins with the statistics
    of the model's embeddings.
    """

    def __init__(self, shape: LatentShape, embeddings: Spread) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(shape.count, shape.width))
        self.length = nn.Parameter(torch.zeros(shape.width))
        self.project = nn.Linear(shape.width, len(embeddings.mean))
        self.norm = nn.LayerNorm(len(embeddings.mean))
        with torch.no_grad():
            self.norm.weight.copy_(embeddings.deviation)
            self.norm.bias.copy_(embeddings.mean)

    def forward(self, latents: Tensor, lengths: Tensor) -> Tensor:
        """`lengths` are how many rows there were of each text, [b]."""
        told = latents + self.places + self.length * lengths.to(latents).log()[:, None, None]
        return self.norm(self.project(told))


class Latents(nn.Module):
    """One resampler, and a reader for each model, by name."""

    def __init__(self, shape: LatentShape, rows: Spread) -> None:
        super().__init__()
        self.shape = shape
        self.resampler = Resampler(shape, rows)
        self.readers = nn.ModuleDict()

    def add(self, name: str, embeddings: Spread) -> None:
        """A reader; the resampler stays as it is."""
        self.readers[_key(name)] = Reader(self.shape, embeddings)

    def only(self, name: str) -> "Latents":
        """The same with one of the readers."""
        made = Latents(self.shape, Spread(self.resampler.mean, self.resampler.deviation))
        made.readers[_key(name)] = self.reader(name)
        made.resampler = self.resampler
        return made

    def reader(self, name: str) -> Reader:
        """That of a model."""
        found = self.readers[_key(name)]
        assert isinstance(found, Reader)
        return found

    def to_bytes(self) -> bytes:
        """A safetensors file that holds everything; a bitwise round trip."""
        kept = {name: each.contiguous() for name, each in self.state_dict().items()}
        record = {"format": FORMAT, "shape": asdict(self.shape), "readers": [*self.readers]}
        return with_record(kept, record)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Latents":
        """Read what `to_bytes` wrote. MapError when it is not such a file."""
        tensors, record = split_record(data)
        if record.get("format") != FORMAT:
            raise MapError("this file holds no latents that this version can read")
        shape = LatentShape(**record["shape"])
        rows = Spread(tensors["resampler.mean"], tensors["resampler.deviation"])
        made = cls(shape, rows)
        for key in record["readers"]:
            bias = tensors[f"readers.{key}.norm.bias"]
            made.readers[key] = Reader(shape, Spread(bias, bias))
        made.load_state_dict(tensors)
        return made


def _key(name: str) -> str:
    """A module's name has no dot in it; a model's may."""
    return name.replace(".", "_")
