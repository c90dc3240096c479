"""`isthmus carry lora`: an adapter of one model, for another to have the skill that it teaches."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from actors.catalog import ModelFacts, ModelSpec
from actors.examples import Example
from actors.matrices import outline, places
from actors.weights import default_cache, prepare
from alignment.coverage import LEAST, Coverage, coverage
from alignment.similarity import Similarity
from alignment.updates import Update, to_arrays
from cluster.storage import address, open_store
from jobs import adapter_units
from jobs.adapter_units import How, Made, Showing
from jobs.adapters import ANCHORS, OWN, SOLVED, foreseen
from jobs.config import ConfigError, RunFile
from jobs.ends import CarryError, carried_directory, ends, peft_readme, require_free
from jobs.harvest import Harvest
from jobs.names import ROOT
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.sections import Adapters
from jobs.texts import Texts, gather
from jobs.units import Arrays, Asking, digest
from jobs.work import make_work

DEFAULT_RUN = ROOT / "configs" / "adapters" / "demo.yaml"  # its anchors, where a user names no run
Read = Literal["own", "anchors"]

_README = """\
How far the skill survived is not measured here: a run with a section lora measures it for skills
that it knows, beside adapters that were taught natively."""


@dataclass(frozen=True)
class AdapterWish:
    """What a user asks for: a PEFT directory, and names of models as in other verbs.

    The target learns on texts that the adapted source writes of its `own`, or on the `anchors` of
    the run; of either so many `texts`. Of its own it writes `tokens` (32 if left out, and 1 of a
    judgement) after the `form` in which the skill is asked for, with words of an anchor for its
    `{}`. Of a `judgement` what it says is learned, not what its adapter changes, and twice as many
    are asked of words that it writes in the form without the adapter. The target is `refit` on
    them, or its adapter is `solved` for in a few steps. Unless `any_base`, an adapter that says it
    was made for a model of another name is refused; unless `forced`, a pair of models of which too
    few layers are alike is.
    """

    adapter: Path
    source: str
    target: str
    out: Path
    run: Path | None = None
    read: Read = "own"
    texts: int | None = None
    form: str = ""
    tokens: int | None = None
    judgement: bool = False
    how: How = "refit"
    any_base: bool = False
    forced: bool = False


@dataclass(frozen=True)
class CarriedAdapter:
    """What was carried: how many of the target's layers have a partner, the adapter's rank, the
    tokens that the target read for it, and KL in nats per word from what is wanted to what is said
    on held-out texts, before and after."""

    covered: Coverage
    rank: int
    tokens: int
    before: float
    after: float
    seconds: float


def carry_adapter(wish: AdapterWish, reporter: Reporter) -> CarriedAdapter:
    """Make an adapter of the target, on Ray, and write it as PEFT keeps them.

    The directory appears whole or not at all; nothing is tracked. Answers of the models are kept in
    the run's store, so that a call that was broken off goes on where it was.

    Raises:
        CarryError: the directory is not empty, both models are the same, or too few of their layers
            are alike.
        AdapterError: the adapter is damaged, no plain LoRA, or of another model.
        ModelError, ConfigError: a model, or the run file, is not there or broken.
    """
    # Not at the top: PEFT takes seconds to import.
    from actors.cargo.lora import read_adapter
    from actors.cargo.peft_files import AdapterError

    require_free(wish.out)
    if wish.form and wish.form.count("{}") != 1:
        raise CarryError(f"--form {wish.form!r}: it has to have {{}} once, where words go")
    if wish.judgement and not (wish.form and wish.read == "own"):
        raise CarryError(
            "--judgement: what is judged is asked for in a form, of own texts: with --form, and "
            "without --read anchors"
        )
    run, source, target = ends(wish.source, wish.target, wish.run, DEFAULT_RUN, reporter)
    if run.lora is None:
        raise ConfigError(
            f"run {run.name} has no section lora, which says how an adapter is carried"
        )
    section = run.lora if wish.texts is None else _with_texts(run, run.lora, wish.texts)
    checkpoint = prepare(run.models[0], default_cache(), reporter.note)
    adapter = read_adapter(wish.adapter, places(outline(checkpoint)))
    if not wish.any_base and not _may_be_of(adapter.base, wish.source, run.models[0]):
        raise AdapterError(
            f"{wish.adapter}: it says it was made for {adapter.base}, not for {wish.source}; with "
            "--any-base it is taken for one of that all the same"
        )
    made = Made(_address(adapter.updates), adapter.updates, (), 0, 0.0)
    # Of the run the anchors alone are read: no skill's lesson takes part.
    run = run.without_cargo
    texts, store = gather(run), open_store(run.store_location)
    with opened(run, texts, store, reporter) as (models, workers):
        asking = Asking(models, store, run.cluster.in_flight, run.cluster.restarts, reporter)
        covered = _assessed(Harvest(run, models, store, *workers, reporter), texts.anchors)
        if covered.above_null < LEAST and not wish.forced:
            raise CarryError(_too_few(covered, target))
        carried, files = _carried(asking, section, run.seed, texts, (source, target), made, wish)
    before, *after = carried.held_out
    done = CarriedAdapter(
        covered, section.rank, carried.tokens, before, min(after), carried.seconds
    )
    record: dict[str, JsonValue] = {
        "adapter": str(wish.adapter),
        "source": source.name,
        "source_fingerprint": source.fingerprint,
        "target": target.name,
        "target_fingerprint": target.fingerprint,
        "read": wish.read,
        "form": wish.form,
        "judgement": wish.judgement,
        "how": wish.how,
        "layers_with_a_partner": covered.above_null,
        "rank": done.rank,
        "tokens_read": done.tokens,
        "kl_before": done.before,
        "kl_after": done.after,
    }
    readme = peft_readme("An adapter", source, target, _README)
    with carried_directory(wish.out, record, readme) as whole:
        for name, content in files.items():
            (whole / name).write_bytes(content.tobytes())
    return done


def _with_texts(run: RunFile, section: Adapters, texts: int) -> Adapters:
    least, most = adapter_units.LEAST, run.anchors.texts
    if not least <= texts <= most:
        raise CarryError(
            f"{texts} texts to learn on: at least {least}, some of which are held out, and at most "
            f"the run's {most} anchors"
        )
    return section.model_copy(update={"texts": texts})


def _may_be_of(base: str | None, name: str, model: ModelSpec) -> bool:
    """Whether what an adapter calls its model may be this one: a path or nothing tells nothing."""
    if not base or Path(base).is_absolute() or base.startswith("."):
        return True
    own = (name, model.name, model.hub or "", str(model.directory or ""))
    return base.rpartition("/")[2].lower() in {each.rpartition("/")[2].lower() for each in own}


def _address(updates: Mapping[str, Update]) -> str:
    arrays = to_arrays(updates).items()
    return address("adapter", {name: digest(array) for name, array in arrays})


def _assessed(harvest: Harvest, anchors: list[str]) -> Coverage:
    """How many of the target's layers are like one of the source's, on anchors."""
    run, models = harvest.run, harvest.crew
    for wave in models.waves:
        models.meet(wave)
        work = make_work(run, anchors, models.facts)
        harvest.read(work, wave)
    (comparison,) = work.comparisons
    found = Similarity.from_bytes(harvest.store.get(comparison.to))
    forth = comparison.source == models.facts[run.models[0].name].fingerprint
    return coverage(found if forth else found.swapped)


def _too_few(covered: Coverage, target: ModelFacts) -> str:
    alone = ", ".join(map(str, covered.alone))
    return (
        f"{covered.above_null:.0%} of the layers of {target.name} are more like one of the source "
        f"than by chance, and {LEAST:.0%} are needed; none is like layer {alone}: --force carries "
        "it all the same"
    )


def _carried(
    asking: Asking,
    section: Adapters,
    seed: int,
    texts: Texts,
    ends_of: tuple[ModelFacts, ModelFacts],
    adapter: Made,
    wish: AdapterWish,
) -> tuple[Made, Arrays]:
    """The adapter of the target, and its files."""
    source, target = ends_of

    mine, theirs = adapter_units.shared(asking, source, target)
    anchors = texts.anchors[: section.texts]
    some = [Example(text) for text in anchors]
    if wish.read == "own":
        some = _own_texts(asking, section, seed, texts.anchors, source, adapter, wish)
    order = (source, adapter, some, mine, section.tokens)
    changing = adapter_units.changing(*order, outright=wish.judgement)
    answer = asking.one("reading what the adapter changes", changing)
    taught = adapter_units.taught(changing, some, theirs, answer)
    way = ANCHORS if wish.read == "anchors" else SOLVED if wish.how == "solved" else OWN
    told = foreseen(way, taught, *adapter_units.costs(asking, anchors, source, target))
    unit = adapter_units.remaking(target, taught, wish.how, told, section, seed)
    made = adapter_units.made(unit, asking.one("carrying the adapter", unit))
    return made, asking.one("writing the adapter", adapter_units.as_peft(target, made))


def _own_texts(
    asking: Asking,
    section: Adapters,
    seed: int,
    anchors: list[str],
    source: ModelFacts,
    adapter: Made,
    wish: AdapterWish,
) -> list[Example]:
    """What the adapted source writes, as the skill is asked for."""
    tokens = wish.tokens or (1 if wish.judgement else 32)
    showing, sources = Showing(wish.form, tokens, wish.judgement), {source.name: source}
    asked = adapter_units.asked(
        asking, "writing what is judged", sources, showing, anchors, section.texts, seed
    )
    on = {source.name: adapter}
    order = (asking, "writing texts", sources, on, asked, showing, seed)
    return adapter_units.own_texts(*order)[source.name]
