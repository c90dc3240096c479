"""Maps of caches trained through a tiny target: nearer to what it says, and to nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.cache_training import CacheTraining, Lesson, TrainedCaches, train_cache_map
from actors.caching import CacheError, fill, know, read
from actors.cargo.kv_cache import carry, map_inputs, own_tokens, with_own
from actors.engine import Engine, load
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.maps import Affine, LowRank

CACHED = 10
TESTED = 6
QUICK = CacheTraining(learning_rate=0.01, batch=4, epochs=6, patience=6)


@pytest.fixture(scope="module")
def engines(checkpoint: Callable[[str], Path]) -> tuple[Engine, Engine]:
    return load(checkpoint("llama")), load(checkpoint("gemma3_text"))


def lesson(engines: tuple[Engine, Engine], text: str) -> Lesson:
    source, target = (read(engine, "tiny", [text])[0] for engine in engines)
    known = know(engines[1], target.ids, 0).states
    inputs = map_inputs(source, target.spans, known)
    cached = {name: rows[:CACHED] for name, rows in inputs.items()}
    return Lesson(target.ids, CACHED, own_tokens(source.spans, target.spans[:CACHED]), cached)


@pytest.fixture(scope="module")
def lessons(engines: tuple[Engine, Engine], sentences_of_all: Sequence[str]) -> list[Lesson]:
    return [lesson(engines, text) for text in sentences_of_all]


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
def base(engines: tuple[Engine, Engine], lessons: list[Lesson]) -> CacheMap:
    """Of low rank, and shrunk by too large a λ, so that there is something to gain."""
    inputs = {
        name: torch.from_numpy(np.concatenate([each.inputs[name] for each in lessons]))
        for name in lessons[0].inputs
    }
    reduced = {name: Reduction.of(rows, 3) for name, rows in inputs.items()}
    cells = [
        cell[:CACHED]
        for each in lessons
        for cell in [np.concatenate(list(_cells(engines[1], each).values()), axis=1)]
    ]
    x = torch.cat([of(inputs[name]) for name, of in reduced.items()], 1)
    sums = CacheMoments.of(x, torch.from_numpy(np.concatenate(cells)))
    widths = {site: rows.shape[1] for site, rows in _cells(engines[1], lessons[0]).items()}
    return fit_caches(sums, sums, reduced, widths, lambdas=(3.0,)).cut(4)


def _cells(engine: Engine, of: Lesson) -> dict[str, np.ndarray]:
    text = str(engine.tokenizer.decode(of.ids, skip_special_tokens=True))
    return read(engine, "tiny", [text])[0].cells


@pytest.fixture(scope="module")
def trained(engines: tuple[Engine, Engine], base: CacheMap, lessons: list[Lesson]) -> TrainedCaches:
    return train_cache_map(engines[1], base.to_bytes(), lessons[:-TESTED], lessons[-TESTED:], QUICK)


def test_what_the_target_says_after_held_out_texts_comes_nearer(trained: TrainedCaches) -> None:
    assert trained.improved
    assert min(trained.held_out) < 0.9 * trained.held_out[0]
    assert len(trained.held_out) <= QUICK.epochs + 1


def test_the_loss_before_any_step_is_that_of_the_carried_cells(
    engines: tuple[Engine, Engine],
    base: CacheMap,
    lessons: list[Lesson],
    trained: TrainedCaches,
    sentences_of_all: Sequence[str],
) -> None:
    """Hardly a token of a tiny vocabulary is not drawn: the whole of it is the oracle."""
    found = []
    for text in sentences_of_all[-TESTED:]:
        source, target = (read(engine, "tiny", [text])[0] for engine in engines)
        known = know(engines[1], target.ids[:CACHED], 0).states
        spans = target.spans[:CACHED]
        first = target.first(own_tokens(source.spans, spans))
        carried = with_own(carry(source, spans, known, base), first)
        found.append(_kl(engines[1], target.ids, target.first(CACHED), carried))
    assert np.mean(found) == pytest.approx(trained.held_out[0], rel=1e-3)


def _kl(engine: Engine, ids: np.ndarray, *caches: dict[str, np.ndarray]) -> float:
    fed = torch.from_numpy(ids[CACHED:])[None]
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
    assert found.map == base.to_bytes()


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
