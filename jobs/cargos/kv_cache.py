"""KV caches: what one model has read, handed over for another to go on from."""

import json
from functools import partial
from itertools import combinations

import numpy as np

from actors.cache_folder import CARRIED, MAPS
from actors.cache_training import CacheTraining
from actors.folder import report_address
from actors.hand_over import again
from actors.mending import PARTS, right
from cluster.storage import Store
from evaluation.cargos.kv_cache import CacheCell, cache_cell
from jobs.cache_maps import require_together
from jobs.cargo import Came, Cargo, Going
from jobs.config import RunFile
from jobs.handing_over import Handed, cache_files, hand_over
from jobs.passages import Passages
from jobs.sections import Caches
from jobs.texts import Texts
from jobs.waves import Crew
from jobs.workload import Reading, tokens

# Of what is cached before the rest of a text that is handed over; and of one cached in part.
VARIANTS, IN_PART = 7, 3


class KvCaches(Cargo):
    """What one model has read, for another to go on from."""

    def require(self, run: RunFile, crew: Crew) -> None:
        """Raises ConfigError: two models do not fit into the cluster together."""
        for pair in combinations([spec.name for spec in run.models], 2):
            require_together(crew, pair)

    def carry(self, going: Going) -> Came:
        run, asking = going.run, going.asking
        section, of_caches = _asked(run, going.texts)
        known = (asking.crew, asking.store, asking.reporter)
        handed = hand_over(run, section, of_caches, *known)
        return Came(
            [_cell(section, run.seed, asking.store, each) for each in handed],
            {each.key: partial(cache_files, handed=each, store=asking.store) for each in handed},
        )

    def readings(self, run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
        """Texts are read for each pair, then by a source and by a target for each ordered one."""
        section, of_caches = _asked(run, texts)
        read = tokens((*of_caches.fitted, *of_caches.held))
        test = [each for of in of_caches.test.values() for each in of]
        whole, cached = tokens([each.text for each in test]), tokens([each.cached for each in test])
        judged = whole - cached
        again = sum(share * cached + judged for share in section.again)
        maps, shorter = (section.small is not None) + section.trained, section.shorter
        parts = len(PARTS) * section.losses
        gone_on = judged * (VARIANTS + maps + IN_PART * len(shorter) + parts) + again
        read_in_two = (2 * cached + whole) + sum(2 * share * cached + judged for share in shorter)
        handed = Reading(
            "handing caches over", others * (read_in_two + gone_on), 1.0, others * gone_on
        )
        if not section.trained:
            return (Reading("caches", others * read), handed)
        # Both read every text once more, and then what follows the cached part goes forth and back;
        # next to none of the vocabulary is scored.
        follows = read * section.judged / (section.cached + section.judged)
        taught = 2 * read + 2 * CacheTraining().epochs * follows
        training = Reading("training maps of caches", others * taught)
        return (Reading("caches", others * read), training, handed)


def _asked(run: RunFile, texts: Texts) -> tuple[Caches, Passages]:
    assert run.kv_cache is not None, f"{run.name} carries no caches"
    assert texts.passages is not None, "a run with the section has them"
    return run.kv_cache, texts.passages


def _cell(section: Caches, seed: int, store: Store, handed: Handed) -> CacheCell:
    handing = handed.handing
    place = handing.maps[CARRIED]
    report = json.loads(store.get(report_address(place)))
    return cache_cell(
        handing.source.name,
        handing.target.name,
        handed.nats,
        {share: again(share) for share in section.again},
        {name: len(store.get(to)) for name, to in handing.maps.items() if name not in MAPS},
        handed.shorter,
        {part: right(part) for part in PARTS} if section.losses else {},
        way="ridge",
        held_out_r2=float(np.mean(list(report["held_out_r2"].values()))),
        heads=report["heads_r2"],
        map_bytes=len(store.get(place)),
        map_address=place,
        cached_characters=section.cached,
        judged_characters=section.judged,
        draws=section.bootstrap_draws,
        seed=seed,
    )
