"""What a model is called, where its weights come from, and the plain facts about it.

Nothing heavy is imported here: a run file is checked, and a report is written, without torch.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SOURCES = ("hub", "directory", "gguf", "package")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PACKAGE_FILE = re.compile(r"[A-Za-z_]\w*(/[^/]+)+")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Dtype = Literal["float32", "bfloat16"]


class ModelError(ValueError):
    """A model that cannot be had: one line that says which, why, and what would help."""


class ModelSpec(BaseModel):
    """One model of a run: a short name, exactly one source, and the precision it computes in.

    `hub` is an `organisation/name`, with an optional `revision`. `directory` is a checkpoint
    in the usual layout (config.json, tokenizer, safetensors). `gguf` is one GGUF file. `package`
    is a GGUF file inside an installed distribution, written `import_package/path/to/file`, or
    the list of its parts in order. `sha256` is of the whole GGUF.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    hub: str | None = None
    directory: Path | None = None
    gguf: Path | None = None
    package: str | tuple[str, ...] | None = None
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
        first, more = self.parts[0], len(self.parts) - 1
        return f"package {first}" + (f" and {more} more parts" if more else "")


class ModelFacts(BaseModel):
    """What is known of a model once its checkpoint is there.

    `parameters` counts what is stored (a tied head counts once); widths are in elements.
    `fingerprint` changes with any weight, the configuration, the tokenizer or `dtype` (what the
    model computes in), and with nothing else: it stands for the model in every address.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    parameters: int
    fingerprint: str
    dtype: Dtype
