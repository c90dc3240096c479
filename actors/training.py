"""Trains a map through its target, so that what a vector does to the next word is kept.

Maps fitted in closed form match activations. Here the target itself is the measure: gradients go
back through its frozen blocks to the map, and to nothing else.

Shapes: n vectors, ds and dt widths of the sites in source and target, r rank of the correction,
p prompts to train on, h held out, w words, b prompts of a pass.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actors.behaviour import chosen_words, next_word_chances
from actors.encoding import encode
from actors.engine import Engine
from actors.site_names import Site
from actors.sites import fanning_out_at, require_injected, site_width
from alignment.maps import Affine, Linear, LowRank, Map, map_from_bytes
from cluster.pace import paced

SIGNS = (1.0, -1.0)  # with and against each vector, in the order in which effects are kept
# Of all copies together: every block above the site keeps them for the way back.
TOKENS_A_PASS = 512


class TrainingError(ValueError):
    """A map that cannot be trained as asked; one line says why."""


@dataclass(frozen=True)
class Training:
    """How a map is trained.

    `rank` is the most that the correction has; Adam (arXiv 1412.6980) moves its numbers by about
    `learning_rate` times a typical one in a step, and a step takes `batch` prompts. After each
    epoch what is held out is looked at: training stops after `patience` epochs without a gain.
    `consistency` weighs how the vectors lie to each other against what they do.
    """

    rank: int = 8
    learning_rate: float = 0.03
    batch: int = 8
    epochs: int = 40
    patience: int = 4
    consistency: float = 0.1


@dataclass(frozen=True, eq=False)
class TrainOrder:
    """What is to be trained, and on what.

    Attributes:
        base: the map from which training starts, as `Map.to_bytes` writes it: affine or low rank.
        site: of the target, where what is carried is added.
        vectors: [n, ds], of the source; their lengths do not matter.
        spread: unit of strength at the site: carried vectors are added at `strength` of them.
        prompts: to train on.
        held_out: prompts that only say when to stop, and whether anything was won.
        words: by which effects are compared; those that the target's tokenizer cannot tell apart
            by their first token are left out.
        effects: [n, 2, p + h, w] what the vectors do in the source: the log-chances of the words
            after the prompts, then after those held out, with and against each vector, less those
            of the source as it is.
    """

    base: bytes
    site: str
    vectors: np.ndarray
    spread: float
    strength: float
    prompts: Sequence[str]
    held_out: Sequence[str]
    words: Sequence[str]
    effects: np.ndarray
    training: Training


@dataclass(frozen=True, eq=False)
class TrainedMap:
    """The map, and how it came about.

    `held_out` is the loss on held-out prompts before any step and after each epoch, in nats;
    `improved` is whether any was below the first. If none was, the map is the base as it was.
    `losses` are those of the steps, with the weighted consistency; `words` those compared.
    """

    map: bytes
    improved: bool
    held_out: tuple[float, ...]
    losses: tuple[float, ...]
    words: tuple[str, ...]
    seconds: float


def train_map(engine: Engine, order: TrainOrder) -> TrainedMap:
    """Train a correction of low rank to a map, by its effect in the target.

    The map is base + left @ right, with left [dt, r] and right [r, ds]. Only these two are trained.
    left starts at zero, and right at the main directions of what the vectors span, which it never
    leaves: training starts at the base, nothing is drawn at random, and what is orthogonal to all
    vectors is carried as before. Points are not looked at: the bias stays as it is.

    The loss is the mean over vectors, signs and prompts of KL(wanted || steered) over the words:
    `wanted` is the target as it is with the source's change of log-chances added, `steered` the
    target with the carried vector added. Besides, it has `Training.consistency` times the
    inconsistency among carried vectors (see `inconsistency`). The map of the epoch with the least
    held-out KL is returned, so it is never worse there than the base.

    Over several ranks each comes to the same map; `order` must then be the same on all of them.

    Raises:
        TrainingError: the order does not fit together, or asks for what cannot be trained.
        SiteError: the target has no such site, or nothing can be added there.
        WordsError: fewer than two words can be told apart.
        TextError: a prompt that this model cannot read as asked.
        ShardingError: no gradients go through a model that is held like this.
    """
    started = time.monotonic()
    with engine.held.with_gradients():
        base = _checked(engine, order)
        correction = _Correction.of(base, order, engine.device)
        course = _Course(engine, order)
        best, held_out, losses = _trained(engine, order, correction, course)
    return TrainedMap(
        map=order.base if best is None else _corrected(base, *best).to_bytes(),
        improved=best is not None,
        held_out=tuple(held_out),
        losses=tuple(losses),
        words=tuple(course.words),
        seconds=time.monotonic() - started,
    )


def inconsistency(carried: Tensor, units: Tensor) -> Tensor:
    """How unlike carried vectors [n, dt] lie to each other than the source's, of length 1 [n, ds].

    The variance of their log-gains, plus the mean square of the differences between the cosines of
    all pairs. The source's geometry is the measure, not that of the base: the base is what training
    is to mend, and may have distorted it. 0 for a rotation at any scale, and for a single vector.
    """
    lengths = carried.norm(dim=1)
    directions = carried / lengths[:, None]
    one, other = torch.triu_indices(len(carried), len(carried), 1)
    differences = (directions @ directions.mT - units @ units.mT)[one, other]
    return lengths.log().var(correction=0) + differences.square().sum() / max(1, len(one))


@dataclass(frozen=True, eq=False)
class _Correction:
    """What is trained, on top of what the base carries: left [dt, r] and mix [r, m].

    `basis` [m, ds] is an orthonormal basis of what the vectors span. right is mix @ basis, so that
    it stays in there however its numbers move.
    """

    basis: Tensor
    units: Tensor  # [n, ds]
    base: Tensor  # [n, dt]
    left: Tensor
    mix: Tensor

    @classmethod
    def of(cls, base: Map, order: TrainOrder, device: torch.device) -> "_Correction":
        units = functional.normalize(torch.from_numpy(order.vectors.astype(np.float64)))
        _, sizes, directions = torch.linalg.svd(units, full_matrices=False)
        basis = directions[: int((sizes > 1e-6 * sizes[0]).sum())].float()
        carried = base.pushforward(units.float())
        for number, length in enumerate(carried.norm(dim=1).tolist()):
            if not 0 < length < float("inf"):
                raise TrainingError(
                    f"vector {number}: the base map carries it to a length of {length:g}"
                )
        rank = min(order.training.rank, len(basis))
        return cls(
            basis.to(device),
            units.float().to(device),
            carried.to(device),
            left=torch.zeros(base.target_width, rank, device=device, requires_grad=True),
            mix=torch.eye(rank, len(basis), device=device, requires_grad=True),
        )

    def carried(self) -> Tensor:
        """The vectors in the target, [n, dt]."""
        return self.base + self.units @ self.basis.mT @ self.mix.mT @ self.left.mT

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Adam, with steps in proportion to what the numbers of each matrix are like."""
        typical = self.base.square().mean().sqrt().item(), len(self.basis) ** -0.5
        return torch.optim.Adam(
            [
                {"params": [matrix], "lr": learning_rate * size}
                for matrix, size in zip((self.left, self.mix), typical, strict=True)
            ]
        )

    def factors(self) -> tuple[Tensor, Tensor]:
        """Left and right as they are now."""
        with torch.no_grad():
            return self.left.cpu().clone(), (self.mix @ self.basis).cpu()


class _Course:
    """What the target is asked and what it should say."""

    def __init__(self, engine: Engine, order: TrainOrder) -> None:
        self._engine, self._site = engine, Site.parse(order.site)
        self._length = order.strength * order.spread
        self._prompts = [*order.prompts, *order.held_out]
        tokens, apart = chosen_words(engine, self._prompts, order.words)
        self._tokens = torch.from_numpy(tokens[:, apart])
        self.words = [word for word, told in zip(order.words, apart, strict=True) if told]
        plain = next_word_chances(engine, self._prompts, order.words, [None])[0][:, apart]
        wanted = torch.from_numpy(plain + order.effects[..., apart]).float().log_softmax(-1)
        self._wanted = wanted.flatten(0, 1).to(engine.device)  # [2 n, p + h, w]
        self._lengths = encode(engine, self._prompts).lengths

    def passes(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """These prompts in their order, as many at a time as may be."""
        rows = len(self._wanted)
        some: list[int] = []
        for number in numbers:
            longest = max(self._lengths[each] for each in (*some, number))
            if some and rows * (len(some) + 1) * longest > TOKENS_A_PASS:
                yield some
                some = []
            some.append(number)
        yield some

    def divergence(self, carried: Tensor, numbers: Sequence[int]) -> Tensor:
        """KL in nats, mean over vectors [n, dt] and signs, sum over these prompts."""
        encoded = encode(self._engine, [self._prompts[number] for number in numbers])
        directions = functional.normalize(carried) * self._length
        signs = directions.new_tensor(SIGNS)[:, None]
        added = (directions[:, None] * signs).flatten(0, 1)
        with fanning_out_at(self._engine, self._site, added, len(numbers)):
            states = self._engine.states(encoded.ids).unflatten(0, (len(added), len(numbers)))
        costs = []
        for column, number in enumerate(numbers):
            ends = states[:, column, encoded.lengths[column] - 1]
            said = self._engine.logits(ends, self._tokens[number]).log_softmax(1)
            wanted = self._wanted[:, number]
            costs.append((wanted.exp() * (wanted - said)).sum(1).mean())
        return torch.stack(costs).sum()


def _trained(
    engine: Engine, order: TrainOrder, correction: _Correction, course: _Course
) -> tuple[tuple[Tensor, Tensor] | None, list[float], list[float]]:
    """The best left and right, if any is better than none; held-out losses; losses of steps."""
    p, h = len(order.prompts), len(order.held_out)
    training = order.training
    optimizer = correction.optimizer(training.learning_rate)

    def look() -> float:
        with torch.no_grad():
            carried = correction.carried()
            passes = course.passes(range(p, p + h))
            found = sum(course.divergence(carried, numbers).item() for numbers in passes)
        return engine.held.agreed(found / h)

    def step(numbers: Sequence[int]) -> float:
        optimizer.zero_grad()
        loss = 0.0
        for some in course.passes(numbers):
            share = course.divergence(correction.carried(), some) / len(numbers)
            share.backward()
            loss += share.item()
        apart = training.consistency * inconsistency(correction.carried(), correction.units)
        apart.backward()
        optimizer.step()
        return loss + apart.item()

    best, at = None, 0
    held_out, losses = [look()], []
    for epoch in paced(range(1, training.epochs + 1)):
        starts = paced(range(0, p, training.batch))
        losses += [step(range(start, min(start + training.batch, p))) for start in starts]
        held_out.append(look())
        if held_out[-1] < held_out[at]:
            best, at = correction.factors(), epoch
        elif epoch - at >= training.patience:
            break
    return best, held_out, losses


def _corrected(base: Linear, left: Tensor, right: Tensor) -> Linear:
    if isinstance(base, LowRank):
        return LowRank(torch.cat((base.left, left), 1), torch.cat((base.right, right)), base.bias)
    assert isinstance(base, Affine)
    return replace(base, weight=base.weight + left @ right)


def _checked(engine: Engine, order: TrainOrder) -> Linear:
    """The base map, of an order in which all fits together."""
    base = map_from_bytes(order.base)
    if not isinstance(base, Affine | LowRank):
        raise TrainingError(
            f"a map of kind {base.kind} cannot be trained; allowed: {Affine.kind}, {LowRank.kind}"
        )
    site = Site.parse(order.site)
    require_injected(site)
    vectors = order.vectors
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != base.source_width:
        raise TrainingError(
            f"vectors of shape {vectors.shape}: the base map reads [n, {base.source_width}]"
        )
    if (width := site_width(engine, site)) != base.target_width:
        raise TrainingError(
            f"the base map writes width {base.target_width}, this model has {width} at {site}"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for number, length in enumerate(lengths):
        if not 0 < length < np.inf:
            raise TrainingError(f"vector {number} has a length of {length:g}: it has no direction")
    for name, value in (("strength", order.strength), ("spread", order.spread)):
        if not 0 < value < np.inf:
            raise TrainingError(f"{name} {value:g}: it must be above 0, and finite")
    for name, prompts in (("prompts", order.prompts), ("held_out", order.held_out)):
        if not prompts:
            raise TrainingError(f"{name}: there are none")
    if both := set(order.prompts) & set(order.held_out):
        raise TrainingError(f"prompt {min(both)!r} is held out, and to be trained on too")
    asked = len(order.prompts) + len(order.held_out)
    wanted = (len(vectors), len(SIGNS), asked, len(order.words))
    if order.effects.shape != wanted or not np.isfinite(order.effects).all():
        raise TrainingError(f"effects of shape {order.effects.shape}: {wanted} is wanted, finite")
    return base
