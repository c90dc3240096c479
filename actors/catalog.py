"""What a model is called, where its weights come from, and the plain facts about it.

Nothing heavy is imported here: a run file is checked, and a report is written, without torch.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from actors.architectures import NormKind
from actors.blueprint import Blueprint, Fact, Shape, blueprint

SOURCES = ("hub", "directory", "gguf", "package", "derived")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PACKAGE_FILE = re.compile(r"[A-Za-z_]\w*(/[^/]+)+")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Dtype = Literal["float32", "bfloat16"]
# Absolute from the start: hosts work in other directories than the one who wrote it.
HerePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class ModelError(ValueError):
    """A model that cannot be had: one line that says which, why, and what would help."""


class ClosedWeights(ModelError):
    """A model whose weights are not published: nothing made of activations can cross."""


class Derivation(Fact):
    """How a model is made from another: a recipe of `actors.derived`, its options, and a seed.

    In a run file, `base` may be the name of another model of the run, or of the catalog.
    """

    base: "ModelSpec"
    recipe: Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]
    seed: int = 0
    options: Annotated[dict[str, bool | int | float], Field(default_factory=dict)]


class ModelSpec(Fact):
    """One model of a run: a short name, exactly one source, and the precision it computes in.

    `hub` is an `organisation/name`, with an optional `revision`. `directory` is a checkpoint
    in the usual layout (config.json, tokenizer, safetensors). `gguf` is one GGUF file. `package`
    is a GGUF file inside an installed distribution, written `import_package/path/to/file`, or
    the list of its parts in order. `derived` makes it from another model. `sha256` is of the whole
    GGUF.
    """

    name: Name
    hub: str | None = None
    directory: HerePath | None = None
    gguf: HerePath | None = None
    package: str | tuple[str, ...] | None = None
    derived: Derivation | None = None
    revision: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    dtype: Dtype = "float32"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [source for source in SOURCES if getattr(self, source) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(
                f"model {self.name}: exactly one of {', '.join(SOURCES)} is needed, found {found}"
            )
        if self.hub is not None and not _HUB_ID.fullmatch(self.hub):
            raise ValueError(f"model {self.name}: hub is {self.hub!r}, not organisation/name")
        if self.revision is not None and self.hub is None:
            raise ValueError(f"model {self.name}: revision goes with hub only")
        if self.sha256 is not None and self.gguf is None and self.package is None:
            raise ValueError(f"model {self.name}: sha256 goes with gguf or package only")
        if self.package is not None and not self.parts:
            raise ValueError(f"model {self.name}: package lists no file")
        for part in self.parts:
            if not _PACKAGE_FILE.fullmatch(part):
                raise ValueError(
                    f"model {self.name}: package has {part!r}, not import_package/path/to/file"
                )
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The files of `package` in order; empty for any other source."""
        if self.package is None:
            return ()
        return (self.package,) if isinstance(self.package, str) else self.package

    def source_line(self) -> str:
        """Where the weights come from, in a few words for people."""
        if self.hub is not None:
            return f"hub {self.hub}" + (f" at {self.revision}" if self.revision else "")
        if self.directory is not None:
            return f"directory {self.directory}"
        if self.gguf is not None:
            return f"GGUF file {self.gguf}"
        if self.derived is not None:
            return f"{self.derived.recipe}, made from {self.derived.base.name}"
        first, more = self.parts[0], len(self.parts) - 1
        return f"package {first}" + (f" and {more} more parts" if more else "")


class ModelFacts(Shape):
    """What is known of a model once its checkpoint is there.

    `parameters` counts what is stored (a tied head counts once); widths are in elements.
    `norm`, `activation` (as its blueprint has them) and `sparse` are Llama's where nothing is said.
    `fingerprint` changes with any weight, the configuration, the tokenizer or `dtype` (what the
    model computes in), and with nothing else: it stands for the model in every address.
    """

    name: Name
    parameters: int
    fingerprint: str
    dtype: Dtype
    norm: NormKind = "RMSNorm"
    activation: str = "SwiGLU"
    sparse: bool = False


class TokenizerFacts(Fact):
    """Models with the same tokenizer have the same `name` here; `kind` is how it was made."""

    name: str
    kind: Literal["sentencepiece-bpe", "sentencepiece-unigram", "byte-level-bpe"]


class Entry(Fact):
    """A model of the catalog, known by its published configuration alone.

    `config` holds the keys of its config.json. `series` is shared by models trained together (one
    recipe, several sizes and forms), `languages` are those its makers name. `package` and `sha256`
    say where the weights can be had besides the hub. `depth_upscaled_from` is the depth of the
    model whose layers it repeats. A closed model has a name and a maker, and nothing else.
    """

    name: Name
    aliases: tuple[Name, ...] = ()
    maker: str | None = None
    weights: Literal["open", "closed"] = "open"
    hub: str | None = None
    directory: Path | None = None
    package: str | tuple[str, ...] | None = None
    sha256: str | None = None
    series: str | None = None
    licence: str | None = None
    languages: tuple[str, ...] | None = None
    tokenizer: TokenizerFacts | None = None
    depth_upscaled_from: int | None = None
    parameters: int | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _open_or_closed(self) -> Self:
        if self.weights == "open" and self.config is None:
            raise ValueError(f"model {self.name}: config is missing (or weights: closed)")
        if self.weights == "closed" and (self.config or self.hub or self.package):
            raise ValueError(f"model {self.name}: closed weights have no config, hub or package")
        return self

    @cached_property
    def blueprint(self) -> Blueprint:
        """What its configuration says.

        Raises:
            ClosedWeights: there is none.
            BlueprintError: a size is missing.
        """
        if self.config is None:
            raise ClosedWeights(closed_line(self))
        return blueprint(self.config)


def closed_line(entry: Entry) -> str:
    """Why nothing but text leaves or reaches a closed model."""
    maker = f" of {entry.maker}" if entry.maker else ""
    return (
        f"{entry.name}{maker}: its weights are not published, so no activation, cache or adapter "
        "can cross into it or out of it; text relay is the only channel"
    )
