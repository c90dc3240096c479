"""Maps of caches trained through a tiny target: nearer to what it says, and to nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.cache_training import (
    CacheTraining,
    Lesson,
    TrainedCaches,
    lesson,
    reduced,
    train_cache_map,
)
from actors.cached_text import map_inputs
from actors.caching import CacheError, fill, know, read
from actors.engine import Engine, load
from actors.hand_over import Passage, meet, meet_all
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.maps import Affine, LowRank

CACHED = 10
TESTED = 6
QUICK = CacheTraining(learning_rate=0.01, batch=4, epochs=6, patience=6)


@pytest.fixture(scope="module")
def engines(checkpoint: Callable[[str], Path]) -> tuple[Engine, Engine]:
    return load(checkpoint("llama")), load(checkpoint("gemma3_text"))


@pytest.fixture(scope="module")
def sentences_of_all() -> list[str]:
    ways = (
        "Nobody had told {} about {}, and so {} went on as before until the evening came.",
        "It was {} who spoke of {} first, and it was {} who would not stop speaking of it.",
        "When {} came home, {} was all that {} found there, and rain fell on the tin roof.",
    )
    who = ("the gardener", "her brother", "an old man", "the dog")
    what = ("the frost", "the price of salt", "a good lamp")
    return [way.format(a, b, a) for b in what for way in ways for a in who]


@pytest.fixture(scope="module")
def passages(engines: tuple[Engine, Engine], sentences_of_all: list[str]) -> list[Passage]:
    found = []
    for text in sentences_of_all:
        (target,) = read(engines[1], "tiny", [text])
        found.append(Passage(text, int(target.spans[CACHED - 1, 1])))
    return found


@pytest.fixture(scope="module")
def base(engines: tuple[Engine, Engine], passages: list[Passage]) -> CacheMap:
    """Of low rank, and shrunk by too large a λ, so that there is something to gain."""
    inputs: dict[str, list[np.ndarray]] = {}
    cells, widths = [], {}
    for passage in passages:
        source, target = (read(engine, "tiny", [passage.cached])[0] for engine in engines)
        known = know(engines[1], target.ids, 0).states
        for name, rows in map_inputs(source, target.spans, known).items():
            inputs.setdefault(name, []).append(rows)
        cells.append(np.concatenate(list(target.cells.values()), axis=1))
        widths = {site: of.shape[1] for site, of in target.cells.items()}
    rows = {name: torch.from_numpy(np.concatenate(of)) for name, of in inputs.items()}
    reductions = {name: Reduction.of(of, 3) for name, of in rows.items()}
    x = torch.cat([of(rows[name]) for name, of in reductions.items()], 1)
    sums = CacheMoments.of(x, torch.from_numpy(np.concatenate(cells)))
    cut = fit_caches(sums, sums, reductions, widths, lambdas=(3.0,)).cut(4)
    return CacheMap.from_bytes(cut.to_bytes(4))


@pytest.fixture(scope="module")
def lessons(
    engines: tuple[Engine, Engine], base: CacheMap, passages: list[Passage]
) -> list[Lesson]:
    source, target = engines
    return [
        lesson(target, of, reduced(read(source, "tiny", [of.cached])[0], base), base)
        for of in passages
    ]


@pytest.fixture(scope="module")
def trained(engines: tuple[Engine, Engine], base: CacheMap, lessons: list[Lesson]) -> TrainedCaches:
    return train_cache_map(engines[1], base.to_bytes(), lessons[:-TESTED], lessons[-TESTED:], QUICK)


def test_what_the_target_says_after_held_out_texts_comes_nearer(trained: TrainedCaches) -> None:
    assert trained.improved
    assert min(trained.held_out) < 0.9 * trained.held_out[0]
    assert len(trained.held_out) <= QUICK.epochs + 1


def test_texts_that_are_read_together_are_as_each_alone(
    engines: tuple[Engine, Engine], base: CacheMap, passages: list[Passage]
) -> None:
    some = passages[:4]
    mine = read(engines[0], "tiny", [of.cached for of in some])
    together = meet_all(engines[1], "tiny", some, mine)
    for found, passage, of in zip(together, some, mine, strict=True):
        alone = meet(engines[1], "tiny", passage, of)
        assert found.ids.tolist() == alone.ids.tolist()
        assert found.cached == alone.cached
        mean, first = found.mean(base), len(found.own["keys.0"])
        for site, cells in alone.native.items():
            assert found.native[site] == pytest.approx(cells, rel=1e-4, abs=1e-5)
            assert mean[site].shape == cells.shape
            assert (mean[site][first:] == mean[site][-1]).all()


def test_the_loss_before_any_step_is_that_of_the_carried_cells(
    engines: tuple[Engine, Engine], base: CacheMap, passages: list[Passage], trained: TrainedCaches
) -> None:
    """Hardly a token of a tiny vocabulary is not drawn: the whole of it is the oracle."""
    found = []
    for passage in passages[-TESTED:]:
        (mine,) = read(engines[0], "tiny", [passage.cached])
        met = meet(engines[1], "tiny", passage, mine)
        found.append(_kl(engines[1], met.fed, met.native, met.carried(base)))
    assert np.mean(found) == pytest.approx(trained.held_out[0], rel=1e-3)


def _kl(engine: Engine, after: np.ndarray, *caches: dict[str, np.ndarray]) -> float:
    fed = torch.from_numpy(after)[None]
    with torch.inference_mode():
        native, carried = (
            engine.model(input_ids=fed, past_key_values=fill(engine, [cells])).logits.log_softmax(2)
            for cells in caches
        )
    return float((native.exp() * (native - carried)).sum(2).mean())


def test_only_the_factors_are_changed(base: CacheMap, trained: TrainedCaches) -> None:
    found = CacheMap.from_bytes(trained.map)
    assert isinstance(found.map, LowRank)
    assert found.map.rank == 4
    assert found.writes == base.writes
    for name, each in base.reductions.items():
        for part, of in each.tensors().items():
            assert torch.equal(found.reductions[name].tensors()[part], of)


def test_what_is_trained_is_the_map_as_it_is_in_four_bits(
    engines: tuple[Engine, Engine], passages: list[Passage], trained: TrainedCaches
) -> None:
    """The held-out loss is that of the file, with nothing lost when it was written."""
    by, found = CacheMap.from_bytes(trained.map), []
    assert by.to_bytes(4) == trained.map
    for passage in passages[-TESTED:]:
        (mine,) = read(engines[0], "tiny", [passage.cached])
        met = meet(engines[1], "tiny", passage, mine)
        found.append(_kl(engines[1], met.fed, met.native, met.carried(by)))
    assert np.mean(found) == pytest.approx(min(trained.held_out), rel=1e-2)


def test_training_again_gives_the_same_bits(
    engines: tuple[Engine, Engine], base: CacheMap, lessons: list[Lesson], trained: TrainedCaches
) -> None:
    again = train_cache_map(
        engines[1], base.to_bytes(), lessons[:-TESTED], lessons[-TESTED:], QUICK
    )
    assert again.map == trained.map


def test_without_a_gain_the_map_is_the_one_it_began_with(
    engines: tuple[Engine, Engine], base: CacheMap, lessons: list[Lesson]
) -> None:
    wild = replace(QUICK, learning_rate=1e4, epochs=2)
    found = train_cache_map(engines[1], base.to_bytes(), lessons[:-TESTED], lessons[-TESTED:], wild)
    assert not found.improved
    assert found.map == base.to_bytes(4)


def test_what_cannot_be_trained_is_refused(
    engines: tuple[Engine, Engine], base: CacheMap, lessons: list[Lesson]
) -> None:
    assert isinstance(base.map, LowRank)
    full = replace(base, map=Affine(base.map.left @ base.map.right, base.map.bias))
    with pytest.raises(CacheError, match="only a map of low rank"):
        train_cache_map(engines[1], full.to_bytes(), lessons, lessons, QUICK)
    whole = replace(lessons[0], cached=len(lessons[0].ids))
    with pytest.raises(CacheError, match="none comes after"):
        train_cache_map(engines[1], base.to_bytes(), [whole], lessons, QUICK)
    other = replace(base, writes={"keys.0": 32, "values.0": base.map.target_width - 32})
    with pytest.raises(CacheError, match="cells of another model"):
        train_cache_map(engines[1], other.to_bytes(), lessons, lessons, QUICK)
