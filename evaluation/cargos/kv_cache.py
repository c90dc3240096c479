"""What is known of a KV cache that was handed over, out of the nats of every text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import ClassVar, Literal

from evaluation.cells import Cell, Said, Tried, Value, controls
from evaluation.flat import Own, bounds, plain, slug
from evaluation.retention import Interval, Measured, Retention, level, measure_retention
from evaluation.wording import spelt, words

# What is cached before the text that is judged, beside what is read again.
BASE, NATIVE, CARRIED = "base", "native", "carried"
TOKENS = "own tokens alone"
CONTROLS = ("shuffled rows", "another text", "mean cell")

Nats = Mapping[str, float]  # per token of what follows, by what is cached before it
Measure = Callable[[Sequence[Nats], str], Retention]


class AgainScore(Value):
    """Retention where the target reads a share of the cached tokens, the last ones, again."""

    share: float
    retention: Interval | None


class ContentScore(Value):
    """Texts of one kind, what the target gains there by its own cache (nats per token), and the
    share of it that is kept."""

    name: str
    texts: int
    gain: float
    retention: Interval | None


class LengthScore(Value):
    """Texts of which so many of the last characters are cached, what the target gains there by its
    own cache (nats per token), and the share of it that is kept."""

    characters: int
    gain: float
    retention: Interval | None


class LossScore(Value):
    """A part of what is carried, and what putting it right gives back of all that is lost."""

    part: str
    given_back: Interval | None


class SmallScore(Value):
    """A map that is smaller than the one that is used: its name, its bytes, and what it keeps."""

    name: str
    map_bytes: int
    retention: Interval | None


class CacheCell(Cell):
    """A KV cache, judged on test texts by what follows it, in nats per token: less is better.

    `way` is the name of the map. `tokens` is the retention of a map that reads nothing of the
    source but only what the target itself knows of its tokens: what is carried beyond that has
    crossed. `heads` are held-out R² of maps from the one layer at the same depth, by how its heads
    are told out. A text is cached up to about `cached_characters`; what follows is judged.
    `lengths` are of the same texts with less of them cached, `losses` of parts that the target puts
    right.
    """

    said: ClassVar = Said("caches", "KV caches", "what the target gains by its own cache", "kinds")
    cargo: Literal["kv_cache"] = "kv_cache"
    concept: Literal["continuation"] = "continuation"
    tokens: Interval | None
    heads: dict[str, Measured]
    again: tuple[AgainScore, ...]
    small: tuple[SmallScore, ...]
    contents: tuple[ContentScore, ...]
    lengths: tuple[LengthScore, ...] = ()
    losses: tuple[LossScore, ...] = ()
    cached_characters: int
    judged_characters: int
    texts: int

    def own(self) -> Own:
        sizes = {
            "cached_characters": self.cached_characters,
            "judged_characters": self.judged_characters,
            "texts": self.texts,
        }
        metrics = {**bounds("tokens", self.tokens), **{name: float(n) for name, n in sizes.items()}}
        for scheme, r2 in self.heads.items():
            metrics[f"heads.{slug(scheme)}.held_out_r2"] = r2
        for score in self.again:
            metrics |= bounds(f"again.{score.share:g}.retention", score.retention)
        for small in self.small:
            metrics[f"map.{slug(small.name)}.map_bytes"] = float(small.map_bytes)
            metrics |= bounds(f"map.{slug(small.name)}.retention", small.retention)
        for of in self.contents:
            metrics[f"content.{slug(of.name)}.texts"] = float(of.texts)
            metrics[f"content.{slug(of.name)}.gain"] = of.gain
            metrics |= bounds(f"content.{slug(of.name)}.retention", of.retention)
        return Own(
            files=("cache_map.json", "cache_map.safetensors"),
            facts={**sizes, "tokens": plain(self.tokens)},
            metrics=metrics,
        )

    def evidence(self) -> Iterator[str]:
        """What own tokens alone give, what reading the last ones again does, what smaller maps
        keep, each kind of text, and how well the heads of one layer tell of those of another."""
        yield f"own tokens alone {spelt(self.tokens)}"
        for score in self.again:
            yield f"last {100 * score.share:g}% read again {spelt(score.retention)}"
        for small in self.small:
            yield f"{small.name} map of {small.map_bytes / 1e6:.1f} MB {spelt(small.retention)}"
        for of in self.contents:
            yield f"{words(of.name)} {spelt(of.retention)}"
        heads = (f"{scheme} {r2:.2f}" for scheme, r2 in self.heads.items())
        yield f"R² of one layer by its heads: {', '.join(heads)}"

    def tried(self) -> Iterator[Tried]:
        yield Tried("Own tokens alone", "nothing of the source", self.tokens)


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
