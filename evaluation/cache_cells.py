"""The cell of a KV cache, out of the nats of every text that was handed over."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from evaluation.cells import (
    AgainScore,
    CacheCell,
    ContentScore,
    LengthScore,
    LossScore,
    SmallScore,
    controls,
)
from evaluation.retention import Interval, Retention, level, measure_retention

# What is cached before the text that is judged, beside what is read again.
BASE, NATIVE, CARRIED = "base", "native", "carried"
TOKENS = "own tokens alone"
CONTROLS = ("shuffled rows", "another text", "mean cell")

Nats = Mapping[str, float]  # per token of what follows, by what is cached before it
Measure = Callable[[Sequence[Nats], str], Retention]


def cache_cell(
    source: str,
    target: str,
    nats: Mapping[str, Sequence[Nats]],
    again: Mapping[float, str],
    small: Mapping[str, int],
    shorter: Mapping[float, Sequence[Nats]],
    losses: Mapping[str, str],
    *,
    way: str,
    held_out_r2: float,
    heads: Mapping[str, float],
    map_bytes: int,
    map_address: str,
    cached_characters: int,
    judged_characters: int,
    draws: int,
    seed: int,
) -> CacheCell:
    """What crosses of the caches of one model into another; every text counts alike.

    Args:
        nats: of each text, by kind of content.
        again: what the nats are called where a share of the cached tokens is read again.
        small: the bytes of maps that are smaller, by what the nats after them are called.
        shorter: of each text, by how much of what is cached of it there is.
        losses: what the nats are called where a part of what is carried is put right.
        way: the name of the map that carries.
        heads: R² by how the heads of a layer are told out.
        draws: number of resamples of the texts, by which intervals are found.
        seed: every interval is a function of the nats, the draws and the seed.

    Raises:
        RetentionError: a kind with fewer than two texts, or nats that are not finite.
    """

    def measure(texts: Sequence[Nats], name: str, base: str = BASE) -> Retention:
        columns = ([of[each] for of in texts] for each in (base, NATIVE, name))
        return measure_retention(*columns, draws=draws, seed=seed)

    def length(share: float, of: Sequence[Nats]) -> LengthScore:
        characters, found = round(share * cached_characters), measure(of, CARRIED)
        return LengthScore(characters=characters, gain=_gain(found), retention=found.retention)

    texts = tuple(chain.from_iterable(nats.values()))

    def share(name: str) -> Interval | None:
        return measure(texts, name).retention

    carried = measure(texts, CARRIED)
    return CacheCell(
        source=source,
        target=target,
        way=way,
        level=level(carried.retention),
        retention=carried.retention,
        base=carried.base,
        native=carried.native,
        carried=carried.carried,
        controls=controls({name: share(name) for name in CONTROLS}),
        held_out_r2=held_out_r2,
        map_bytes=map_bytes,
        map_address=map_address,
        tokens=share(TOKENS),
        heads=dict(heads),
        again=tuple(AgainScore(share=part, retention=share(name)) for part, name in again.items()),
        small=tuple(
            SmallScore(name=name, map_bytes=size, retention=share(name))
            for name, size in small.items()
        ),
        contents=tuple(_content(name, of, measure) for name, of in nats.items()),
        lengths=tuple(length(*each) for each in sorted({**shorter, 1.0: texts}.items()))
        if shorter
        else (),
        losses=tuple(
            LossScore(part=part, given_back=measure(texts, name, CARRIED).retention)
            for part, name in losses.items()
        ),
        cached_characters=cached_characters,
        judged_characters=judged_characters,
        texts=len(texts),
    )


def _content(name: str, texts: Sequence[Nats], measure: Measure) -> ContentScore:
    found = measure(texts, CARRIED)
    return ContentScore(name=name, texts=len(texts), gain=_gain(found), retention=found.retention)


def _gain(found: Retention) -> float:
    return found.base.value - found.native.value
