"""The maps of a run that are trained through their targets, beside those that are fitted.

Shapes: n concepts, ds width of the source's site.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from actors.catalog import ModelFacts
from actors.folder import report_address
from actors.training import TrainedMap, Training
from alignment.maps import Linear, map_from_bytes
from cluster.storage import Store, address
from jobs.config import RunFile
from jobs.extract import Vectors
from jobs.texts import Texts
from jobs.train import Lesson, shared_words, trained
from jobs.units import Asking
from jobs.ways import TRAINED, HopKey, Ways, key_of
from jobs.work import Hop, Work

OPENING_WORDS = 16  # of each anchor text that the effect of vectors is compared after
OPENINGS, HELD_OUT = 24, 8


def train(
    run: RunFile,
    texts: Texts,
    work: Work,
    models: Mapping[str, ModelFacts],
    vectors: Vectors,
    asking: Asking,
) -> dict[HopKey, str]:
    """Train a map at every place of every pair, from its best linear one: addresses by hop.

    All concepts of the run are trained together, at the middle one of its strengths, by what their
    vectors do to the word after the openings of anchor texts: no dev or test prompt is looked at.
    """
    ways = Ways(run.steers.concepts[0].name, work, models, vectors, asking.store)
    openings = tuple(" ".join(text.split()[:OPENING_WORDS]) for text in texts.anchors)
    strengths = sorted(run.steers.strengths)
    hops, lessons = [], []
    for hop in work.hops:
        base = _base(hop, ways, asking.store)
        if base is None:
            continue
        hops.append(hop)
        of = [vectors[hop.source, hop.place, concept][0] for concept in texts.prompts]
        lessons.append(
            Lesson(
                source=models[hop.source],
                target=models[hop.target],
                source_site=hop.source_site,
                target_site=hop.target_site,
                base_map=base,
                vectors=np.stack(of),
                source_spread=ways.length(hop.source, hop.place),
                target_spread=ways.length(hop.target, hop.place),
                strength=strengths[len(strengths) // 2],
                prompts=openings[:OPENINGS],
                held_out=openings[OPENINGS : OPENINGS + HELD_OUT],
                words=shared_words(),
                training=Training(),
            )
        )
    found = zip(hops, trained(asking, lessons), strict=True)
    return {key_of(hop): _kept(each, hop, ways, asking.store) for hop, each in found}


def _base(hop: Hop, ways: Ways, store: Store) -> bytes | None:
    """The best of the linear maps on held-out anchors."""
    by_r2 = sorted(hop.maps.values(), key=lambda to: ways.report(to)["held_out_r2"], reverse=True)
    blobs = (store.get(to) for to in by_r2)
    return next((blob for blob in blobs if isinstance(map_from_bytes(blob), Linear)), None)


def _kept(found: TrainedMap, hop: Hop, ways: Ways, store: Store) -> str:
    """The address at which the map is kept as fitted ones are, with its report beside it."""
    to = address("trained map", hashlib.sha256(found.map).hexdigest())
    report = {
        "fitter": TRAINED,
        "held_out_r2": float("nan"),  # it is not made to fit rows, and not judged by them
        "rows": ways.report(hop.resizing)["rows"],
        "target_spread": ways.length(hop.target, hop.place),
        "held_out_kl": [found.held_out[0], min(found.held_out)],
        "improved": found.improved,
        "steps": len(found.losses),
        "seconds": found.seconds,
        "words": len(found.words),
    }
    store.put(report_address(to), json.dumps(report, sort_keys=True).encode())
    store.put(to, found.map)
    return to
