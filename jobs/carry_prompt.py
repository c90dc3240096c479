"""`isthmus carry soft_prompt`: a prompt tuned in one model, for another to read.

Nothing is trained: a map between the embeddings of tokens that both vocabularies have carries its
rows; or else latents that are there already, made of what the source holds of the prompt.

Shapes: k tokens that both have, v rows of the prompt, ds and dt width of an embedding.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from actors.catalog import ModelFacts
from alignment.fitters import FITTERS
from alignment.latents import Latents
from alignment.maps import MapError
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows
from cluster.storage import open_store
from jobs import adapter_units
from jobs.ends import CarryError, carried_directory, ends, peft_readme, require_free
from jobs.latent_training import latent_rows
from jobs.names import ROOT, one_of
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.soft_prompts import LATENTS_FILE
from jobs.texts import gather
from jobs.units import Asking, Unit, digest

DEFAULT_RUN = ROOT / "configs" / "adapters" / "demo.yaml"  # how hosts are started
FOLDS = 5
_README = "What of the prompt survived is not measured here."


@dataclass(frozen=True)
class PromptWish:
    """What a user asks for: a PEFT directory, names of models as in other verbs, and the fitter of
    the map, or a directory of pulled latents in its place."""

    prompt: Path
    source: str
    target: str
    out: Path
    run: Path | None = None
    fitter: str = "ridge"
    latents: Path | None = None


@dataclass(frozen=True)
class CarriedPrompt:
    """What was carried: how many rows, and in what way, in a line for people."""

    rows: int
    by: str


def carry_prompt(wish: PromptWish, reporter: Reporter) -> CarriedPrompt:
    """Map a prompt's rows, and write them as PEFT keeps them; all or nothing.

    Rows come out as large, beside the target's embeddings, as they are beside the source's: a map
    that is cautious makes them small.

    Raises:
        CarryError: the directory is not empty, both models are the same, they share too few tokens,
            the fitter does not map between their widths, or the latents are not of these two.
        AdapterError: the prompt is damaged, of another kind, or not of the source's width.
        ModelError, ConfigError: a model, or the run file, is not there or broken.
    """
    # Not at the top: PEFT takes seconds to import.
    from actors.cargo.soft_prompt import SoftPrompt, read_prompt, write_prompt

    require_free(wish.out)
    one_of("fitter", wish.fitter, tuple(FITTERS), CarryError)
    run, source, target = ends(wish.source, wish.target, wish.run, DEFAULT_RUN, reporter)
    prompt = read_prompt(wish.prompt, source.width)
    run = run.without_cargo
    texts, store = gather(run), open_store(run.store_location)
    pulled = None if wish.latents is None else pulled_latents(wish.latents, source, target)
    with opened(run, texts, store, reporter) as (models, _):
        asking = Asking(models, store, run.cluster.in_flight, run.cluster.restarts, reporter)
        if pulled is None:
            rows, how = _by_a_map(wish.fitter, prompt.rows, run.seed, asking, source, target)
        else:
            rows, how = _by_latents(pulled, prompt.rows, asking, source, target)
    record: dict[str, JsonValue] = {
        "prompt": str(wish.prompt),
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "target": target.name,
        "target_fingerprint": target.fingerprint,
        "rows": len(rows),
        **how.record,
    }
    readme = peft_readme("A soft prompt", source, target, _README)
    with carried_directory(wish.out, record, readme) as whole:
        write_prompt(SoftPrompt(rows), whole, target.name)
    return CarriedPrompt(len(rows), how.said)


@dataclass(frozen=True)
class _How:
    """In what way rows were carried, for the record and for people."""

    record: dict[str, JsonValue]
    said: str


def _by_a_map(
    fitter: str, rows: Tensor, seed: int, asking: Asking, source: ModelFacts, target: ModelFacts
) -> tuple[Tensor, _How]:
    here, there = _shared(asking, source, target)
    with asking.reporter.stage(f"fitting {fitter}"):
        mapped = map_rows(fitter, rows, here, there, seed)
    record: dict[str, JsonValue] = {
        "fitter": fitter,
        "shared_tokens": len(here),
        "held_out_r2": mapped.held_out_r2,
    }
    said = (
        f"{fitter} over {len(here):,} tokens that both have (held-out R² "
        f"{mapped.held_out_r2:.3f}); {len(rows)} rows, {mapped.size:.2f} times as large as an "
        f"average embedding, and {mapped.left:.2f} times before they were made as large again"
    )
    return mapped.rows, _How(record, said)


def pulled_latents(
    directory: Path, source: ModelFacts, target: ModelFacts
) -> tuple[Latents, dict[str, str]]:
    """Latents that `isthmus pull` brought, and what is known of them.

    Raises:
        CarryError: nothing of the kind is there, or they are of other models.
    """
    cargo = directory / "artifacts" / "cargo"
    try:
        known = json.loads((cargo / "cargo.json").read_text())
        latents = Latents.from_bytes((cargo / LATENTS_FILE).read_bytes())
    except (OSError, json.JSONDecodeError, MapError):
        raise CarryError(f"{directory} holds no latents that isthmus pull has brought") from None
    for side, model in (("source", source), ("target", target)):
        if known[f"{side}_fingerprint"] != model.fingerprint:
            raise CarryError(
                f"{directory}: its {side} is {known[side]}, another model than {model.name}"
            )
    return latents, known


def _by_latents(
    pulled: tuple[Latents, dict[str, str]],
    rows: Tensor,
    asking: Asking,
    source: ModelFacts,
    target: ModelFacts,
) -> tuple[Tensor, _How]:
    """The source reads the prompt as it reads texts, and the target latents of what it holds."""
    latents, known = pulled
    read = rows.numpy()
    asked = [digest(read), known["site"]]
    unit = Unit(source, "prompt_stream", (read, known["site"]), asked)
    held = asking.one("reading the prompt", unit)["answer"]
    carried = torch.from_numpy(latent_rows(latents, [known["target"]], [held])[known["target"]][0])
    record: dict[str, JsonValue] = {"latents": known["map_address"], "concept": known["concept"]}
    said = (
        f"{len(rows)} rows, as {source.name} holds them at {known['site']}, made {len(carried)} "
        f"latents of {known['concept']}, which {target.name} reads"
    )
    return carried, _How(record, said)


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
