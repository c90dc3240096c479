"""Maps between two models at the sites of a vector: those that are tracked, else fitted now."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from actors.catalog import ModelFacts
from actors.folder import report_address
from actors.site_names import Site
from alignment.fitters import FITTERS
from alignment.maps import Map, map_from_bytes
from cluster.storage import Store, open_store
from evaluation.tracking import ModelVersion, pull, versions
from jobs.config import RunFile
from jobs.fitting import Fitting
from jobs.harvest import Harvest
from jobs.opened import opened
from jobs.progress import Reporter
from jobs.texts import Texts, gather
from jobs.work import Hop, Place, make_work, mapped_sites, outputs, site_of

_R2 = "held_out_r2"


class NoBridge(ValueError):
    """No map leads from where a vector is; one line says from where one does."""


@dataclass(frozen=True, eq=False)
class Bridge:
    """A map from a site of the source to one of the target, and what is known of it.

    `target_spread` is the length of a typical centred activation at the target's site. `tracked`
    is the registered version that it was pulled from, as NAME@VERSION.
    """

    source_site: str
    target_site: str
    map: Map
    address: str
    fitter: str
    held_out_r2: float
    target_spread: float
    tracked: str | None = None


@dataclass(frozen=True, eq=False)
class Bridges:
    """Where maps from `source` to `target` are looked for, and how they are fitted.

    `run` is of these two models alone.
    """

    run: RunFile
    source: ModelFacts
    target: ModelFacts
    reporter: Reporter

    def of(self, sites: Iterable[str], concept: str | None) -> list[Bridge]:
        """The bridges that begin at these sites of the source, the tracked ones first of all.

        Of several tracked at one site, that of the concept is taken, or else the one that does
        best on held-out anchors. Where none is tracked, a map in the run's store will do. Only
        where there is none at any site are maps fitted, at all sites that the run maps.

        Raises:
            NoBridge: no site is tracked, or one at which the run maps models.
            TrackingError, StorageError: what is kept cannot be read.
            And what fitting raises: see `jobs.sweep`.
        """
        wanted = set(sites)
        tracked, mapped = self._tracked(concept), set(mapped_sites(self.run, self.source))
        known = mapped.union(tracked)
        if not wanted & known:
            asked, there = (", ".join(sorted(each, key=Site.parse)) for each in (wanted, known))
            raise NoBridge(
                f"no map leads from {asked} of {self.source.name} to {self.target.name}; maps lead "
                f"from {there}: take the vector at one of these"
            )
        found = [self._pulled(site, *tracked[site]) for site in sorted(wanted & set(tracked))]
        rest = (wanted & mapped).difference(tracked)
        return _one_each([*found, *(self._kept(rest, may_fit=not found) if rest else ())])

    def _tracked(self, concept: str | None) -> dict[str, tuple[ModelVersion, float]]:
        """The registered version, and its held-out R², at every site from which one leads."""
        tags = {
            "cargo": "steering",
            "fingerprint.source": self.source.fingerprint,
            "fingerprint.target": self.target.fingerprint,
        }
        best: dict[str, tuple[ModelVersion, float]] = {}
        # By the other ways the vector is only cut, or padded with zeros.
        fitted = [
            (version, ran.data.metrics[_R2])
            for version, ran in versions(self.run.tracking_uri, tags)
            if version.tags.get("way") in FITTERS and _R2 in ran.data.metrics
        ]
        # The best comes last, and stays.
        for version, r2 in sorted(fitted, key=lambda each: (_is_of(each[0], concept), each[1])):
            best[self._source_site(version.tags)] = version, r2
        return best

    def _source_site(self, tags: Mapping[str, str]) -> str:
        """A version is tagged with the target's site; the source's plays the same role."""
        kind = tags["site"].partition(".")[0]
        return site_of(Place(kind, tags["role"]), self.source)

    def _pulled(self, site: str, version: ModelVersion, r2: float) -> Bridge:
        name = f"{version.name}@{version.version}"
        with self.reporter.stage(f"pulling {name}"), tempfile.TemporaryDirectory() as scratch:
            to = Path(scratch) / "pulled"
            pull(version.name, version.version, uri=self.run.tracking_uri, to=to)
            files = next(to.rglob("map.json")).parent
            # A vector that a fitted map carried is kept as long as a typical activation.
            spread = float(np.linalg.norm(load_file(files / "vector.safetensors")["vector"]))
            return Bridge(
                source_site=site,
                target_site=version.tags["site"],
                map=Map.load_map(files),
                address=version.tags["address.map"],
                fitter=version.tags["way"],
                held_out_r2=r2,
                target_spread=spread,
                tracked=name,
            )

    def _kept(self, wanted: set[str], *, may_fit: bool) -> list[Bridge]:
        """The best fitter's map from each of these sites that is in the store, or is fitted now."""
        store = open_store(self.run.store_location)
        with self.reporter.stage("looking for maps"):
            texts = gather(self.run)
            models = {each.name: each for each in (self.source, self.target)}
            ends = (self.source.name, self.target.name)
            hops = [
                hop
                for hop in make_work(self.run, texts.anchors, models).hops
                if (hop.source, hop.target) == ends and hop.source_site in wanted
            ]
            there = store.present({to for hop in hops for to in outputs(hop.order)})
        open_hops = [hop for hop in hops if not there.issuperset(outputs(hop.order))]
        if open_hops and may_fit:
            self.reporter.note("there is no map yet: it is fitted now, and kept in the store")
            fit(self.run, texts, store, open_hops, self.reporter)
            open_hops = []
        return [_best(hop, store) for hop in hops if hop not in open_hops]


def fit(run: RunFile, texts: Texts, store: Store, hops: Sequence[Hop], reporter: Reporter) -> None:
    """Read the anchors through the models of a run, and fit the maps of these hops.

    What is read and fitted is kept where a sweep keeps it, and a sweep finds it there.
    """
    with opened(run, texts, store, reporter) as (models, workers):
        harvest = Harvest(run, models, store, *workers, reporter)
        # No layers are compared: a map needs none of that.
        work = replace(make_work(run, texts.anchors, models.facts), comparisons=(), compared=())
        for wave in models.waves:
            harvest.read(work, wave)
        harvest.forget(work)
        orders = [hop.order for hop in hops]
        Fitting(store, workers, run.cluster.restarts, reporter).complete("fitting maps", orders)


def _best(hop: Hop, store: Store) -> Bridge:
    """The bridge of a hop by the fitter that does best on held-out anchors."""
    reports = {name: json.loads(store.get(report_address(to))) for name, to in hop.maps.items()}
    name = max(reports, key=lambda name: reports[name][_R2])
    return Bridge(
        source_site=hop.source_site,
        target_site=hop.target_site,
        map=map_from_bytes(store.get(hop.maps[name])),
        address=hop.maps[name],
        fitter=name,
        held_out_r2=reports[name][_R2],
        target_spread=reports[name]["target_spread"],
    )


def _is_of(version: ModelVersion, concept: str | None) -> bool:
    return version.tags["concept"] == concept


def _one_each(bridges: Sequence[Bridge]) -> list[Bridge]:
    """No two from one site or to one site (roles meet in shallow models): the better stays."""
    kept: list[Bridge] = []
    for bridge in sorted(bridges, key=lambda each: -each.held_out_r2):
        begun, reached = ({each.source_site for each in kept}, {each.target_site for each in kept})
        if bridge.source_site not in begun and bridge.target_site not in reached:
            kept.append(bridge)
    return kept
