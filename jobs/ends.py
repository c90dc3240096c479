"""The two models that something is carried between, and where what comes of it goes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from actors.catalog import ModelError, ModelFacts, ModelSpec
from actors.fleet import find, spec
from actors.weights import default_cache, facts, prepare
from cluster.whole import whole_directory
from jobs.config import RunFile, read_run_file
from jobs.progress import Reporter

RECORD_FILE, README_FILE = "carried.json", "README.txt"
_PEFT_README = """\
{what} of {target}, carried from {source} as {record} says. With transformers and peft:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("PATH OR NAME OF {target}")
    model = PeftModel.from_pretrained(model, "PATH OF THIS DIRECTORY")

{more}
"""


class CarryError(ValueError):
    """Something that cannot be carried as asked; one line says why."""


def ends(
    source: str, target: str, run: Path | None, otherwise: Path, reporter: Reporter
) -> tuple[RunFile, ModelFacts, ModelFacts]:
    """The two models, by names of a run file's models or as in other verbs, and the run with them
    alone: that at `run`, or else at `otherwise`.

    Raises:
        CarryError: both are the same, or called the same.
        ModelError, ConfigError: a model, or the run file, is not there or broken.
    """
    settings = read_run_file(run or otherwise)
    specs = [_spec(name, settings if run else None) for name in (source, target)]
    one, other = (_facts(each, reporter) for each in specs)
    if one.fingerprint == other.fingerprint:
        raise CarryError(f"{source} and {target} are the same model: nothing to carry")
    if one.name == other.name:
        raise CarryError(
            f"both models are called {one.name}: name one of them otherwise, in a YAML file"
        )
    return settings.model_copy(update={"models": tuple(specs)}), one, other


def require_free(out: Path) -> None:
    """Raise CarryError where something is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CarryError(f"{out} is already there: give another directory, or remove it")


@contextmanager
def carried_directory(out: Path, record: Mapping[str, JsonValue], readme: str) -> Iterator[Path]:
    """A new directory to fill; with the record and how to use it, it appears whole or not at all.

    Raises:
        CarryError: it cannot be written.
    """
    try:
        with whole_directory(out) as whole:
            yield whole
            (whole / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            (whole / README_FILE).write_text(readme, encoding="utf-8")
    except OSError as error:
        raise CarryError(f"{out}: cannot be written: {error.strerror}") from None


def peft_readme(what: str, source: ModelFacts, target: ModelFacts, more: str) -> str:
    """How to use a PEFT directory."""
    names = {"source": source.name, "target": target.name, "record": RECORD_FILE}
    return _PEFT_README.format(what=what, more=more, **names)


def _spec(model: str, run: RunFile | None) -> ModelSpec:
    """A model of the run, or else one of those that other verbs know."""
    own = {} if run is None else {each.name: each for each in run.models}
    if model in own:
        return own[model]
    try:
        return spec(find(model))
    except ModelError as error:
        if own:
            raise type(error)(f"{error}; models of the run: {', '.join(own)}") from None
        raise


def _facts(model: ModelSpec, reporter: Reporter) -> ModelFacts:
    with reporter.stage(f"looking at {model.name}"):
        checkpoint = prepare(model, default_cache(), reporter.note)
        return facts(checkpoint, model.name, model.dtype)
