"""`isthmus carry soft_prompt`: a prompt tuned in one model, for another to read.

Nothing is trained: a map between the embeddings of tokens that both vocabularies have carries its
rows.

Shapes: k tokens that both have, v rows of the prompt, ds and dt width of an embedding.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from actors.catalog import ModelFacts
from alignment.fitters import FITTERS
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows
from cluster.storage import open_store
from jobs import adapter_units
from jobs.ends import CarryError, carried_directory, ends, peft_readme, require_free
from jobs.names import ROOT, one_of
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.texts import gather
from jobs.units import Asking, Unit, digest

DEFAULT_RUN = ROOT / "configs" / "adapters" / "demo.yaml"  # how hosts are started
FOLDS = 5
_README = "What of the prompt survived is not measured here."


@dataclass(frozen=True)
class PromptWish:
    """What a user asks for: a PEFT directory, names of models as in other verbs, and the fitter of
    the map."""

    prompt: Path
    source: str
    target: str
    out: Path
    run: Path | None = None
    fitter: str = "ridge"


@dataclass(frozen=True)
class CarriedPrompt:
    """What was carried: how many rows, over how many tokens that both have, how well the map
    foresees embeddings of held-out ones, and how large an average number of the prompt is, in those
    of an average embedding: in the source, and as the map left it."""

    rows: int
    shared: int
    held_out_r2: float
    size: float
    mapped: float


def carry_prompt(wish: PromptWish, reporter: Reporter) -> CarriedPrompt:
    """Map a prompt's rows, and write them as PEFT keeps them; all or nothing.

    Rows come out as large, beside the target's embeddings, as they are beside the source's: a map
    that is cautious makes them small.

    Raises:
        CarryError: the directory is not empty, both models are the same, they share too few tokens,
            or the fitter does not map between their widths.
        AdapterError: the prompt is damaged, of another kind, or not of the source's width.
        ModelError, ConfigError: a model, or the run file, is not there or broken.
    """
    # Not at the top: PEFT takes seconds to import.
    from actors.cargo.soft_prompt import SoftPrompt, read_prompt, write_prompt

    require_free(wish.out)
    one_of("fitter", wish.fitter, tuple(FITTERS), CarryError)
    run, source, target = ends(wish.source, wish.target, wish.run, DEFAULT_RUN, reporter)
    prompt = read_prompt(wish.prompt, source.width)
    run = run.model_copy(
        update={"steering": None, "kv_cache": None, "lora": None, "soft_prompt": None}
    )
    texts, store = gather(run), open_store(run.store_location)
    with opened(run, texts, store, reporter) as (models, _):
        asking = Asking(models, store, run.cluster.in_flight, run.cluster.restarts, reporter)
        here, there = _shared(asking, source, target)
    with reporter.stage(f"fitting {wish.fitter}"):
        mapped = map_rows(wish.fitter, prompt.rows, here, there, run.seed)
    done = CarriedPrompt(len(mapped.rows), len(here), mapped.held_out_r2, mapped.size, mapped.left)
    record: dict[str, JsonValue] = {
        "prompt": str(wish.prompt),
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "target": target.name,
        "target_fingerprint": target.fingerprint,
        "fitter": wish.fitter,
        "rows": done.rows,
        "shared_tokens": done.shared,
        "held_out_r2": done.held_out_r2,
    }
    readme = peft_readme("A soft prompt", source, target, _README)
    with carried_directory(wish.out, record, readme) as whole:
        write_prompt(SoftPrompt(mapped.rows), whole, target.name)
    return done


@dataclass(frozen=True, eq=False)
class MappedRows:
    """Rows of a prompt [v, dt] as large beside the target's embeddings as they were beside the
    source's, `size` times; the map had left them `left` times as large."""

    rows: Tensor
    held_out_r2: float
    size: float
    left: float


def map_rows(fitter: str, rows: Tensor, here: Tensor, there: Tensor, seed: int) -> MappedRows:
    """Rows [v, ds] by a map that is fitted to embeddings [k, ds] and [k, dt] of the same tokens.

    Raises:
        CarryError: the fitter does not map between such widths.
    """
    recipe = FITTERS[fitter]()
    if not recipe.applies(here.shape[1], there.shape[1]):
        raise CarryError(
            f"{fitter} needs {recipe.needs}, and embeddings have {here.shape[1]} and "
            f"{there.shape[1]} numbers"
        )
    if recipe.needs_routes:
        raise CarryError(f"{fitter} needs experts, and embeddings have none")
    folds = np.random.default_rng(seed).integers(0, FOLDS, len(here))
    both = here.double(), there.double(), folds, FOLDS
    fitted = recipe.fit(FoldedMoments.of_rows(*both), FoldedRows.of_rows(*both))
    mapped = fitted.map.transform(rows)
    size, left = _size(rows) / _size(here), _size(mapped) / _size(there)
    return MappedRows(mapped * (size / left), fitted.held_out_r2, size, left)


def _shared(asking: Asking, *ends_of: ModelFacts) -> tuple[Tensor, Tensor]:
    """The embeddings of tokens that both have, [k, ds] and [k, dt]."""
    both = adapter_units.shared(asking, *ends_of)
    if len(both[0]) < 2 * FOLDS:
        raise CarryError(f"{ends_of[0].name} and {ends_of[1].name} share {len(both[0])} tokens")
    units = [
        Unit(each, "embeddings", (ids,), digest(ids))
        for each, ids in zip(ends_of, both, strict=True)
    ]
    one, other = asking.by_waves("reading embeddings", units)
    return torch.from_numpy(one["answer"]), torch.from_numpy(other["answer"])


def _size(rows: Tensor) -> float:
    return float(rows.double().square().mean().sqrt())
