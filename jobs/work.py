"""What a sweep consists of: every unit of work, named by the address of what it will leave.

A unit is done if and only if its address exists, so a list made again after a kill holds what is
left, and two sweeps that share work share its results.
"""

from dataclasses import asdict, dataclass
from itertools import accumulate, combinations, permutations, product
from typing import NamedTuple

from actors import folder
from actors.anchors import AnchorBatch, batches, fingerprint
from actors.catalog import ModelFacts
from actors.comparing import Comparison
from actors.exchange import Kept
from actors.folder import FitOrder, SitePair
from alignment.anatomy import Anatomy
from alignment.fitted import Fitter
from alignment.fitters import FITTERS
from alignment.layers import role_layer
from cluster.storage import address
from jobs.config import ConfigError, RunFile

# Raise it when a change makes the numbers of an unchanged run file differ.
FORMAT = 2
RESIZING_FITTER = "pad_truncate"


class Place(NamedTuple):
    """What stands at like places of models of any depth: a kind of site, at a functional role."""

    kind: str
    role: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.role}"


@dataclass(frozen=True)
class Shard:
    """Batches that stand or fall together."""

    number: int
    batches: tuple[AnchorBatch, ...]
    content: str

    @property
    def words(self) -> int:
        """Words after the first of each text: about the rows that a model has here."""
        return sum(len(text.split()) - 1 for batch in self.batches for text in batch.texts)


@dataclass(frozen=True)
class Hop:
    """One ordered pair of models at one place: the maps between two sites, by fitter.

    `resizing` is the map of the control that only changes the width.
    """

    source: str
    target: str
    place: Place
    source_site: str
    target_site: str
    maps: dict[str, str]
    resizing: str
    order: FitOrder


@dataclass(frozen=True)
class Work:
    """Everything that anchors are read for, before any cargo is carried."""

    shards: tuple[Shard, ...]
    anchors: str
    moments: dict[tuple[SitePair, int], str]
    comparisons: tuple[Comparison, ...]
    compared: tuple[Shard, ...]
    hops: tuple[Hop, ...]


def make_work(run: RunFile, texts: list[str], models: dict[str, ModelFacts]) -> Work:
    """The units of a run over these anchor texts and models.

    Raises ConfigError where no fitter of the run goes from one of the models to another.
    """
    shards = shards_of(run, texts)
    pairs = [_ordered(a, b) for a, b in combinations(models.values(), 2)]
    places = places_of(run)
    site_pairs = [_site_pair(run, place, a, b) for a, b in pairs for place in places]
    moments = {
        (pair, shard.number): address("moments", FORMAT, settled, shard.content)
        for pair, settled in ((pair, _settled(pair)) for pair in site_pairs)
        for shard in shards
    }
    compared = compared_shards(run, shards)
    return Work(
        shards=shards,
        anchors=fingerprint(texts),
        moments=moments,
        comparisons=tuple(_comparison(run, a, b, compared) for a, b in pairs),
        compared=compared,
        hops=tuple(
            _hop(run, models, source, target, place, shards, moments)
            for source, target in permutations(models, 2)
            for place in places
        ),
    )


def places_of(run: RunFile) -> tuple[Place, ...]:
    """Every place that is mapped."""
    return tuple(Place(*each) for each in product(run.maps.kinds, run.maps.roles))


def site_of(place: Place, facts: ModelFacts) -> str:
    """The site of a model at a place."""
    return f"{place.kind}.{role_layer(place.role, facts.layers)}"


def layer_sites(facts: ModelFacts) -> tuple[str, ...]:
    """The residual stream after every layer."""
    return tuple(f"residual.{layer}" for layer in range(facts.layers))


def mapped_sites(run: RunFile, facts: ModelFacts) -> tuple[str, ...]:
    """Every site of a model that maps start from or lead to."""
    return tuple(sorted({site_of(place, facts) for place in places_of(run)}))


def read_sites(run: RunFile, facts: ModelFacts) -> tuple[str, ...]:
    """Every site of a model that is read for maps: those, and routers that fitters want to see."""
    routers = (_router(run, place, facts) for place in places_of(run))
    return tuple(sorted({*mapped_sites(run, facts), *(site for site in routers if site)}))


def kept(model: ModelFacts, sites: tuple[str, ...], batch: AnchorBatch) -> Kept:
    """What a model holds at a batch, as it is set down for models of a later wave."""
    to = address("kept", FORMAT, model.fingerprint, sites, batch.hash)
    return Kept(model.fingerprint, sites, to)


def shards_of(run: RunFile, texts: list[str]) -> tuple[Shard, ...]:
    """The anchor texts, cut up."""
    cut = batches(texts, shard_texts=run.anchors.shard_texts, batch_texts=run.anchors.batch_texts)
    return tuple(
        Shard(number, tuple(pieces), address([piece.hash for piece in pieces]))
        for number, pieces in enumerate(cut)
    )


def compared_shards(run: RunFile, shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
    """The first shards that together have the rows that layers are compared on."""
    words = list(accumulate((shard.words for shard in shards), initial=0))
    return tuple(
        shard for shard, before in zip(shards, words, strict=False) if before < run.similarity.rows
    )


def _ordered(a: ModelFacts, b: ModelFacts) -> tuple[ModelFacts, ModelFacts]:
    """One order for both directions, so that a pair's moments are summed once."""
    return (a, b) if a.fingerprint <= b.fingerprint else (b, a)


def _site_pair(run: RunFile, place: Place, a: ModelFacts, b: ModelFacts) -> SitePair:
    sites = (a.fingerprint, site_of(place, a), b.fingerprint, site_of(place, b))
    return SitePair(*sites, _router(run, place, a), _router(run, place, b))


def _router(run: RunFile, place: Place, facts: ModelFacts) -> str | None:
    """That of the block at the place; None in a dense model, or where no fitter looks at it."""
    wanted = facts.sparse and any(FITTERS[name].needs_routes for name in run.maps.fitters)
    return f"router.{role_layer(place.role, facts.layers)}" if wanted else None


def _settled(pair: SitePair) -> dict[str, str]:
    """A pair in an address: what is not read leaves no trace there."""
    return {name: of for name, of in asdict(pair).items() if of is not None}


def _comparison(
    run: RunFile, a: ModelFacts, b: ModelFacts, compared: tuple[Shard, ...]
) -> Comparison:
    of = (a.fingerprint, b.fingerprint, layer_sites(a), layer_sites(b))
    settings = {**run.similarity.model_dump(), "seed": run.seed}
    content = [shard.content for shard in compared]
    to = address("similarity", FORMAT, list(of), settings, content)
    return Comparison(*of, **settings, to=to)


def _hop(
    run: RunFile,
    models: dict[str, ModelFacts],
    source: str,
    target: str,
    place: Place,
    shards: tuple[Shard, ...],
    moments: dict[tuple[SitePair, int], str],
) -> Hop:
    pair = _site_pair(run, place, *_ordered(models[source], models[target]))
    reverse = pair.source != models[source].fingerprint
    sums = tuple(moments[pair, shard.number] for shard in shards)

    sites = (site_of(place, models[source]), site_of(place, models[target]))
    widths = models[source].width, models[target].width
    anatomies = [_anatomy(run, models[name], place) for name in (source, target)]
    recipes = {
        name: FITTERS[name].between(*anatomies) for name in (*run.maps.fitters, RESIZING_FITTER)
    }
    chosen = [name for name in run.maps.fitters if recipes[name].applies(*widths)]
    if not chosen:
        raise ConfigError(
            f"maps.fitters: none of {', '.join(run.maps.fitters)} goes from {source} (width "
            f"{widths[0]}) to {target} (width {widths[1]})"
        )
    fitters = tuple(recipes[name] for name in dict.fromkeys((*chosen, RESIZING_FITTER)))
    order = _order(fitters, sums, run.anchors.folds, reverse, None)
    maps = {recipe.name: to for recipe, to in order.maps}
    return Hop(
        source,
        target,
        place,
        *sites,
        maps={name: maps[name] for name in chosen},
        resizing=maps[RESIZING_FITTER],
        order=order,
    )


def shuffled(hop: Hop, fitter: str, seed: int) -> FitOrder:
    """The control map of a hop: the same fitter on rows paired at random."""
    return _again(hop, fitter, hop.order.shards, seed)


def on_shards(hop: Hop, fitter: str, part: int, parts: int) -> FitOrder:
    """A hop's map by a fitter, fitted to one of so many parts of the anchors."""
    return _again(hop, fitter, hop.order.shards[part::parts], None)


def _again(hop: Hop, fitter: str, shards: tuple[str, ...], shuffle: int | None) -> FitOrder:
    """One fitter's map of a hop, on other rows."""
    same = tuple(recipe for recipe, _ in hop.order.maps if recipe.name == fitter)
    assert same, f"no {fitter} from {hop.source} to {hop.target}"
    return _order(same, shards, hop.order.folds, hop.order.reverse, shuffle)


def _anatomy(run: RunFile, facts: ModelFacts, place: Place) -> Anatomy:
    derived = {spec.name: spec.derived.recipe for spec in run.models if spec.derived is not None}
    return Anatomy(
        width=facts.width,
        layers=facts.layers,
        heads=facts.heads,
        kv_heads=facts.kv_heads,
        head_width=facts.head_width,
        norm="layer" if facts.norm == "LayerNorm" else "rms",
        activation=facts.activation.lower(),
        sparse=facts.sparse,
        up_scaled=derived.get(facts.name) == "upscaled",
        site=place.kind,
    )


def _order(
    fitters: tuple[Fitter, ...],
    shards: tuple[str, ...],
    folds: int,
    reverse: bool,
    shuffle: int | None,
) -> FitOrder:
    rows = [list(shards), folds, reverse, shuffle]
    maps = tuple(
        (recipe, address("map", FORMAT, rows, recipe.name, asdict(recipe))) for recipe in fitters
    )
    return FitOrder(shards, folds, reverse, shuffle, maps)


def outputs(order: FitOrder) -> list[str]:
    """Every address that an order leaves."""
    return [to for _, made in order.maps for to in (made, folder.report_address(made))]
