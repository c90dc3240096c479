"""Trains a map of caches through its target, so that what comes after the context is kept.

Fitted in closed form, a map makes cells that are near the target's own. Here the target itself is
the measure: gradients go back through its frozen blocks to the map, and to nothing else.

Shapes: t tokens of a text, p of them cached, f after those, d width of the residual stream, D
inputs of a map after reduction, v tokens that are compared.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import add

import numpy as np
import torch
from torch import Tensor

from actors.cache_folder import SMALL_BITS
from actors.cached_text import OWN, Read, map_inputs, own_tokens
from actors.caching import CacheError, cell_sites, cells_of, fill, know, tokens_of
from actors.engine import Engine
from actors.hand_over import Passage
from alignment.cache_map import CacheMap
from alignment.four_bits import rounded, units_of
from alignment.maps import LowRank
from cluster.pace import paced

WARM = 10  # steps until they are as large as they get
DRAWN = 4096  # tokens of the vocabulary that chances are compared on, beside those of the texts


@dataclass(frozen=True)
class CacheTraining:
    """How a map of caches is trained.

    Adam (arXiv 1412.6980) moves the numbers of each factor by about `learning_rate` times a typical
    one in a step, after some smaller steps and then less and less, down to nothing after `epochs`.
    A step takes `batch` texts. After each epoch the held-out texts are looked at: training stops
    early after `patience` epochs without a gain, or when `seconds` are up.
    """

    learning_rate: float = 0.0006
    batch: int = 4
    epochs: int = 4
    patience: int = 2
    seconds: float = 3600.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Lesson:
    """One text in the target: its token ids [t], how many are cached, and what a map reads of them,
    reduced [p, D]. The first `own` cells are the target's.
    """

    ids: np.ndarray
    cached: int
    own: int
    inputs: np.ndarray


def reduced(read: Read, by: CacheMap) -> Read:
    """The cells that a map reads of a text, reduced as it does, in half precision [ts, c]."""
    cells = {
        name: of(torch.from_numpy(read.cells[name])).half().numpy()
        for name, of in by.reductions.items()
        if name != OWN
    }
    return replace(read, cells=cells)


@torch.inference_mode()
def lesson(engine: Engine, passage: Passage, source: Read, by: CacheMap) -> Lesson:
    """What a map is taught of a text that the source has read so far as it is cached, `reduced`.

    Raises:
        CacheError: the text is longer than the target's context.
    """
    ids, spans = tokens_of(engine, passage.text)
    cached = passage.tokens_in(spans)
    known = know(engine, ids[:cached], 0).states
    inputs = map_inputs(source, spans[:cached], by.reductions[OWN](torch.from_numpy(known)).numpy())
    side_by_side = np.concatenate([inputs[name] for name in by.reductions], axis=1)
    return Lesson(ids, cached, own_tokens(source.spans, spans[:cached]), side_by_side)


@dataclass(frozen=True, eq=False)
class TrainedCaches:
    """The map of the epoch with the least held-out loss, which may be the one it began with, in
    four bits.

    `held_out` is the mean KL in nats per token, before any step and after each epoch.
    """

    map: bytes
    improved: bool
    held_out: tuple[float, ...]
    seconds: float


def train_cache_map(
    engine: Engine,
    base: bytes,
    lessons: Sequence[Lesson],
    held_out: Sequence[Lesson],
    training: CacheTraining,
) -> TrainedCaches:
    """Train both factors and the bias of a low-rank map of caches, as they are in four bits.

    The loss is KL(native || carried) at every token after the cached ones, over a part of the
    vocabulary: the target that has read the whole text, against the one that goes on from carried
    cells. The text's own next tokens are not needed for it.

    Raises:
        CacheError: the map is of full rank or for another model, or a lesson has nothing after what
            is cached.
        ShardingError: no gradients go through a model that is held like this.
    """
    started = time.monotonic()
    begun = CacheMap.from_bytes(base)
    if not isinstance(begun.map, LowRank):
        raise CacheError("only a map of low rank is trained: make it smaller")
    if list(begun.writes) != list(cell_sites(len(engine.blocks))):
        raise CacheError("the map writes the cells of another model")
    with engine.held.with_gradients():
        course = _Course(engine, begun, [*lessons, *held_out], training.seed)
        best, seen = _trained(course, len(lessons), training, started)
    found = begun if best is None else replace(begun, map=best)
    return TrainedCaches(
        found.to_bytes(SMALL_BITS), best is not None, tuple(seen), time.monotonic() - started
    )


class _Course:
    """What the target says after each text, and how far from that a map leaves it."""

    def __init__(
        self, engine: Engine, begun: CacheMap, lessons: Sequence[Lesson], seed: int
    ) -> None:
        assert isinstance(begun.map, LowRank)
        self._engine, self._writes = engine, begun.writes
        self._units: list[Tensor] = []
        self._rounding: list[Tensor] = []
        device = engine.device
        self.factors = [  # two matrices and a vector
            tensor.clone().to(device).requires_grad_()
            for tensor in (begun.map.left, begun.map.right, begun.map.bias)
        ]
        vocabulary = engine.model.config.vocab_size
        drawn = np.random.default_rng(seed).integers(0, vocabulary, DRAWN)
        every = np.concatenate([drawn, *(lesson.ids for lesson in lessons)])
        self._tokens = torch.from_numpy(np.unique(every)).to(device)
        self._lessons = [self._prepared(lesson) for lesson in lessons]
        self.count, self.agreed = len(lessons), engine.held.agreed
        self.find_units()

    @torch.no_grad()
    def find_units(self) -> None:
        """Take the factors from now on as they would be stored now, in units that fit them best."""
        self._units = [units_of(each) for each in self.factors[:2]]
        self.round()

    @torch.no_grad()
    def round(self) -> None:
        """Take the factors from now on as they are in four bits now, in the units that were found.

        Gradients pass the rounding as if it were not there (straight through, arXiv 1308.3432).
        """
        both = zip(self.factors[:2], self._units, strict=True)
        self._rounding = [rounded(each, units) - each for each, units in both]

    @torch.no_grad()
    def _prepared(self, lesson: Lesson) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Inputs [p, D], the target's own first cells, ids [f] and what it says of them."""
        if not 0 < lesson.own <= lesson.cached < len(lesson.ids):
            raise CacheError(
                f"{lesson.cached} of {len(lesson.ids)} tokens cached: none comes after"
            )
        ids = torch.from_numpy(lesson.ids).to(self._engine.device)
        first = cells_of(self._engine, ids[None, : lesson.own])
        own = {site: cells[0] for site, cells in first.items()}
        states = self._engine.states(ids[None])[0, lesson.cached :]
        wanted = self._engine.logits(states, self._tokens).log_softmax(-1)
        return (
            torch.from_numpy(lesson.inputs).float().to(ids.device),
            own,
            ids[lesson.cached :],
            wanted,
        )

    def loss(self, number: int) -> Tensor:
        """KL in nats per token after one text."""
        x, own, fed, wanted = self._lessons[number]
        left, right = map(add, self.factors[:2], self._rounding)
        bias = self.factors[2]
        cells = (x @ right.mT @ left.mT + bias).split(list(self._writes.values()), dim=1)
        carried = {}
        for site, part in zip(self._writes, cells, strict=True):
            carried[site] = torch.cat((own[site], part[len(own[site]) :]))
        states = self._engine.states_after(fed[None], fill(self._engine, [carried]))[0]
        said = self._engine.logits(states, self._tokens).log_softmax(-1)
        return (wanted.exp() * (wanted - said)).sum(-1).mean()

    def made(self) -> LowRank:
        """The map as it is now."""
        return LowRank(*(each.detach().cpu().clone() for each in self.factors))


def _trained(
    course: _Course, lessons: int, training: CacheTraining, started: float
) -> tuple[LowRank | None, list[float]]:
    """The best map, if any is better than the first, and the held-out losses."""
    optimizer = torch.optim.Adam(
        [
            {"params": [each], "lr": training.learning_rate * float(each.detach().std())}
            for each in course.factors
        ]
    )
    draw = np.random.default_rng(training.seed)

    def look() -> float:
        with torch.no_grad():
            losses = [course.loss(number).item() for number in range(lessons, course.count)]
        return course.agreed(sum(losses) / len(losses))

    rates = [group["lr"] for group in optimizer.param_groups]
    in_epoch = -(-lessons // training.batch)
    step, last = 0, training.epochs * in_epoch
    best, at = None, 0
    seen = [look()]
    for epoch in paced(range(1, training.epochs + 1)):
        for some in paced(np.array_split(draw.permutation(lessons), in_epoch)):
            now = min(1.0, (step + 1) / WARM) * (1 - step / last)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * now
            step += 1
            optimizer.zero_grad()
            for number in some:
                (course.loss(int(number)) / len(some)).backward()
            optimizer.step()
            course.round()
        course.find_units()  # what is judged is what would be stored
        seen.append(look())
        if seen[-1] < seen[at]:
            best, at = course.made(), epoch
        late = course.agreed(time.monotonic() - started) > training.seconds
        if late or epoch - at >= training.patience:
            break
    return best, seen
