"""`isthmus carry soft_prompt`: a prompt tuned in one model, for another to read.

Nothing is trained: a map between the embeddings of tokens that both vocabularies have carries its
rows.

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
from actors.vocabularies import shared_tokens
from alignment.fitted import Fitted
from alignment.fitters import FITTERS
from alignment.moments import FoldedMoments
from alignment.samples import FoldedRows
from cluster.storage import open_store
from cluster.whole import whole_directory
from jobs import adapter_units
from jobs.ends import README_FILE, RECORD_FILE, CarryError, ends, require_free
from jobs.names import ROOT, one_of
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.texts import gather
from jobs.units import Arrays, Asking, Unit, digest

DEFAULT_RUN = ROOT / "configs" / "adapters" / "demo.yaml"  # how hosts are started
FOLDS = 5
_README = """\
A soft prompt of {target}, carried from {source} as {record} says. With transformers and peft:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("PATH OR NAME OF {target}")
    model = PeftModel.from_pretrained(model, "PATH OF THIS DIRECTORY")

What of the prompt survived is not measured here.
"""


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
    run = run.model_copy(update={"steering": None, "kv_cache": None, "lora": None})
    texts, store = gather(run), open_store(run.store_location)
    with opened(run, texts, store, reporter) as (models, _):
        asking = Asking(models, store, run.cluster.in_flight, run.cluster.restarts, reporter)
        here, there = _shared(asking, source, target)
    with reporter.stage(f"fitting {wish.fitter}"):
        fitted = _fitted(wish.fitter, here, there, run.seed)
    mapped = fitted.map.transform(prompt.rows)
    size, now = _size(prompt.rows) / _size(here), _size(mapped) / _size(there)
    carried = SoftPrompt(mapped * (size / now))
    done = CarriedPrompt(len(mapped), len(here), fitted.held_out_r2, size, now)
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
    try:
        with whole_directory(wish.out) as whole:
            write_prompt(carried, whole, target.name)
            readme = _README.format(source=source.name, target=target.name, record=RECORD_FILE)
            (whole / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            (whole / README_FILE).write_text(readme, encoding="utf-8")
    except OSError as error:
        raise CarryError(f"{wish.out}: cannot be written: {error.strerror}") from None
    return done


def _shared(asking: Asking, *ends_of: ModelFacts) -> tuple[Tensor, Tensor]:
    """The embeddings of tokens that both have, [k, ds] and [k, dt]."""

    def ask(title: str, unit: Unit) -> Arrays:
        (answer,) = asking.by_waves(title, [unit])
        return answer

    names = (
        adapter_units.names(ask("reading vocabularies", adapter_units.naming(each)))
        for each in ends_of
    )
    both = shared_tokens(*names)
    if len(both[0]) < 2 * FOLDS:
        raise CarryError(f"{ends_of[0].name} and {ends_of[1].name} share {len(both[0])} tokens")
    one, other = (
        torch.from_numpy(
            ask("reading embeddings", Unit(each, "embeddings", (ids,), digest(ids)))["answer"]
        )
        for each, ids in zip(ends_of, both, strict=True)
    )
    return one, other


def _fitted(fitter: str, here: Tensor, there: Tensor, seed: int) -> Fitted:
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
    return recipe.fit(FoldedMoments.of_rows(*both), FoldedRows.of_rows(*both))


def _size(rows: Tensor) -> float:
    return float(rows.double().square().mean().sqrt())
