"""A folder of caches, as the plain class it is, and what its maps carry between tiny models."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.cache_folder import CARRIED, MAPS, SHUFFLED, TOKENS, CacheFolder
from actors.cached_text import OWN, Read, map_inputs, own_tokens
from actors.caching import CacheError
from actors.catalog import ModelSpec
from actors.exchange import ShardLost
from actors.folder import report_address
from actors.hand_over import ANOTHER, BASE, MEAN, NATIVE, Passage, again
from actors.host import ModelHost
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from cluster.storage import DirectoryStore, address

COMPONENTS, SAMPLED, FITTED, BATCH = 12, 3, 9, 8
WHO = ("the gardener", "her brother", "an old man", "the dog", "my aunt", "our baker")
WHAT = ("the frost", "the price of salt", "a good lamp", "the tin roof", "a red coat")
WAYS = (
    "Nobody had told {0} about {1}, and so {0} went on as before until the evening came.",
    "It was {0} who spoke of {1} first, and it was {0} who would not stop speaking of {1}.",
    "When {0} came home, {1} was all that {0} found there, and so {0} spoke of {1} again.",
)
TEXTS = [way.format(*of) for of in product(WHO, WHAT) for way in WAYS]
TEXTS = [TEXTS[number * 37 % len(TEXTS)] for number in range(len(TEXTS))]
PLACES = {name: address("map", name) for name in MAPS}
Batch = tuple[list[Read], list[Read], list[np.ndarray]]


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory, new_checkpoint: Callable[..., Path]
) -> tuple[ModelHost, ModelHost]:
    made = []
    for family, tokens in (("llama", 300), ("gemma3_text", 350)):
        directory = new_checkpoint(tmp_path_factory.mktemp(family), family, TEXTS, tokens)
        made.append(ModelHost(ModelSpec(name=f"tiny-{tokens}", directory=directory), directory))
    return made[0], made[1]


@pytest.fixture(scope="module")
def batches(hosts: tuple[ModelHost, ModelHost]) -> list[Batch]:
    source, target = hosts
    some = [TEXTS[at : at + BATCH] for at in range(0, 80, BATCH)]
    return [(source.read(of), target.read(of), target.known(of)) for of in some]


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    hosts: tuple[ModelHost, ModelHost],
    batches: list[Batch],
) -> DirectoryStore:
    """With the maps and reports of a folder that has seen all batches, the last one held out."""
    kept = DirectoryStore(tmp_path_factory.mktemp("store"))
    folder = folder_of(kept, hosts)
    for number, batch in enumerate(batches):
        rows = folder.fold(number, number >= FITTED, *batch)
        assert rows == sum(len(of[0]) for of in rows_of([batch]))
    folder.fit(len(batches), PLACES)
    return kept


def folder_of(store: DirectoryStore, hosts: tuple[ModelHost, ModelHost]) -> CacheFolder:
    source, target = (host.facts().head_width for host in hosts)
    return CacheFolder(store, COMPONENTS, SAMPLED, (source, target))


def rows_of(batches: list[Batch]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Of each text the cells of the target side by side, and the inputs by name."""
    found = []
    for batch in batches:
        for source, target, known in zip(*batch, strict=True):
            at = own_tokens(source.spans, target.spans)
            inputs = map_inputs(source, target.spans, known)
            y = np.concatenate(list(target.cells.values()), 1)[at:]
            found.append((y, {name: of[at:] for name, of in inputs.items()}))
    return found


def sums(batches: list[Batch], reduced: dict[str, Reduction]) -> CacheMoments:
    rows = rows_of(batches)
    x = [
        torch.cat([each(torch.from_numpy(inputs[name])) for name, each in reduced.items()], 1)
        for _, inputs in rows
    ]
    return CacheMoments.of(torch.cat(x), torch.from_numpy(np.concatenate([y for y, _ in rows])))


def test_maps_are_those_of_all_rows_at_once(store: DirectoryStore, batches: list[Batch]) -> None:
    sample = rows_of(batches[:SAMPLED])
    reduced = {
        name: Reduction.of(
            torch.from_numpy(np.concatenate([inputs[name] for _, inputs in sample])),
            None if name == OWN else COMPONENTS,
        )
        for name in sample[0][1]
    }
    widths = {site: of.shape[1] for site, of in batches[0][1][0].cells.items()}
    fitting, held = sums(batches[:FITTED], reduced), sums(batches[FITTED:], reduced)
    expected = fit_caches(fitting, held, reduced, widths)
    found = CacheMap.from_bytes(store.get(PLACES[CARRIED]))
    inputs = {n: torch.from_numpy(of) for n, of in rows_of(batches[FITTED:])[0][1].items()}
    for site, cells in expected.map.transform(inputs).items():
        torch.testing.assert_close(found.transform(inputs)[site], cells, rtol=0.05, atol=0.05)
    report = json.loads(store.get(report_address(PLACES[CARRIED])))
    assert report["lambdas"] == expected.lambdas
    assert report["held_out_r2"] == pytest.approx(expected.held_out_r2, abs=1e-3)
    assert report["rows"] == fitting.count + held.count
    assert report["heads_r2"].keys() == {"learned", "split", "merged"}
    assert max(report["heads_r2"].values()) == report["heads_r2"]["learned"]


def test_what_crosses_shows_in_held_out_rows_and_nothing_in_shuffled_ones(
    store: DirectoryStore,
) -> None:
    r2 = {
        name: np.mean(list(json.loads(store.get(report_address(to)))["held_out_r2"].values()))
        for name, to in PLACES.items()
    }
    assert r2[CARRIED] > r2[TOKENS] > 0.1
    assert abs(r2[SHUFFLED]) < 0.1
    assert list(CacheMap.from_bytes(store.get(PLACES[TOKENS])).reads) == [OWN]


def test_a_batch_without_those_before_it_is_lost(
    hosts: tuple[ModelHost, ModelHost],
    tmp_path: Path,
    batches: list[Batch],
    store: DirectoryStore,
) -> None:
    again = DirectoryStore(tmp_path)
    folder = folder_of(again, hosts)
    with pytest.raises(ShardLost, match="batch 1 came after 0 others"):
        folder.fold(1, False, *batches[1])
    folder.fold(0, False, *batches[0])
    with pytest.raises(ShardLost, match=f"1 of {len(batches)} batches are there"):
        folder.fit(len(batches), PLACES)
    assert not again.present(PLACES.values())
    # Begun anew, it comes to the same to the bit.
    for number, batch in enumerate(batches):
        folder.fold(number, number >= FITTED, *batch)
    folder.fit(len(batches), PLACES)
    for to in PLACES.values():
        assert again.get(to) == store.get(to)


# --- what of a text crosses


def test_between_models_that_hold_the_same_each_layer_reads_its_own(
    hosts: tuple[ModelHost, ModelHost], batches: list[Batch], tmp_path: Path
) -> None:
    source, _ = hosts
    twice = DirectoryStore(tmp_path)
    folder = folder_of(twice, (source, source))
    for number, (read, _, _) in enumerate(batches):
        some = TEXTS[number * BATCH : (number + 1) * BATCH]
        folder.fold(number, number >= FITTED, read, read, source.known(some))
    folder.fit(len(batches), PLACES)
    found = CacheMap.from_bytes(twice.get(PLACES[CARRIED]))
    assert set(found.near) == set(batches[0][0][0].cells)
    assert all(list(each.reads) == [site] for site, each in found.near.items())
    for text in TEXTS[80:84]:
        answer = handed((source, source), twice, text, TEXTS[84])
        assert answer[CARRIED] == pytest.approx(answer[NATIVE], abs=2e-3)


def handed(
    hosts: tuple[ModelHost, ModelHost], store: DirectoryStore, text: str, other: str
) -> dict[str, float]:
    source, target = hosts
    maps = {name: np.frombuffer(store.get(to), np.uint8) for name, to in PLACES.items()}
    passage, another = (Passage.cut(each, 45) for each in (text, other))
    mine, others = (source.read([each.cached]) for each in (passage, another))
    (found,) = target.hand_over([passage], mine, others, maps, (0.5, 1.0))
    return found


def test_a_text_is_handed_over_beside_its_controls(
    hosts: tuple[ModelHost, ModelHost], store: DirectoryStore
) -> None:
    tested = TEXTS[80:90]
    answers = [handed(hosts, store, *of) for of in zip(tested, tested[::-1], strict=True)]
    assert answers[0].keys() == {BASE, NATIVE, ANOTHER, MEAN, *MAPS, again(0.5), again(1.0)}
    # A random model foresees nothing, so it is how far off each text is that counts.
    far = {
        name: np.mean([abs(each[name] - each[NATIVE]) for each in answers]) for name in answers[0]
    }
    assert far[CARRIED] < min(far[name] for name in (BASE, ANOTHER, MEAN, SHUFFLED))
    # All but the first tokens read again is the native cache.
    for each in answers:
        assert each[again(1.0)] == pytest.approx(each[NATIVE], abs=1e-3)


def test_a_text_that_leaves_nothing_to_judge_is_refused() -> None:
    assert Passage.cut("one two three", 5) == Passage("one two three", 7)
    for text, characters in (("one two", 4), ("one two ", 5), ("", 0)):
        with pytest.raises(CacheError, match=f"a text of {len(text)} characters leaves none after"):
            Passage.cut(text, characters)
