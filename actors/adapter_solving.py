"""An adapter that is solved for: no more than a few steps, each of which has a closed form.

Of what the target is to say otherwise, one pass back tells how the loss falls with each matrix, and
another how much a change of the matrix matters to what is said, by Kronecker factors of the Fisher
information (K-FAC, Martens and Grosse 2015, arXiv 1503.05671). The change of rank r that is best
where both are weighed is a singular value decomposition away. How far to go is looked up on texts
that are held out.

Shapes: n rows that are read, o and i what a matrix returns and reads, r rank.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from actors.adapter_refit import Changes, Relearning, beginning
from actors.adapter_training import TrainedAdapter
from actors.adapting import adapting
from actors.engine import Engine
from actors.examples import Example, passes
from actors.learning import Taken
from actors.matrices import Rows, places
from actors.matrix_reading import sides
from alignment.updates import Update
from cluster.pace import paced, part

_SPARE = 8  # directions beyond the rank, by which the first ones are found well
_ASTRAY = 1.02  # no longer step is tried after this; where routes of experts change a loss jumps


@dataclass(frozen=True)
class Solving:
    """How an adapter of rank `rank` is solved for, in so many `steps`.

    `damping` is in units of what an average direction of a matrix matters. `lengths`, from the
    shortest on, are what is tried: how many nats a token what is said would change by, if matrices
    did not act on each other (the radius of a trust region, arXiv 1502.05477).
    They do, so that it is small. How the loss falls is read off the first `texts`, and what
    matters off `sampled` ones of them.
    """

    rank: int = 8
    steps: int = 3
    damping: float = 3.0
    lengths: tuple[float, ...] = tuple(4.0**-power for power in range(12, -1, -1))
    texts: int = 96
    sampled: int = 32
    seed: int = 0


def solve_adapter(
    engine: Engine,
    texts: Sequence[Example],
    taught: Sequence[Changes],
    held_out: int,
    tokens: np.ndarray,
    solving: Solving,
    foreseen: float = 0.0,
) -> TrainedAdapter:
    """An adapter of the target that changes what it says as the source's does: see
    `actors.adapter_refit.refit_adapter`, whose texts and loss these are.

    Matrices of experts stay as they are: each reads too few rows.

    Raises:
        TextError: a text of which the tokenizer makes no token.
        PartError: the model is not whole.
    """
    started = time.monotonic()
    some = beginning(texts, solving.texts, held_out)
    of_these = beginning(taught, solving.texts, held_out)
    here: dict[str, Update] = {}
    with part(0, 0):
        course = Relearning(engine, some, of_these, held_out, tokens, foreseen)
        seen, read = [course.look(here)], 0
    sampled = some[: min(solving.sampled, course.count)]
    with engine.held.with_gradients():
        for step in paced(range(solving.steps)):
            drawn = torch.Generator(engine.device).manual_seed(solving.seed + step)
            with part(0, 0.3):
                matters, for_these = _matters(engine, sampled, here, drawn)
            with part(0.3, 0.6):
                slopes, for_all = falls(engine, course, here)
            with part(0.6, 1):
                here, loss = _best_step(course, here, seen[-1], matters, slopes, solving)
            read += for_these + for_all
            seen.append(loss)
    updates = {place: each.on(torch.device("cpu")) for place, each in here.items()}
    updates = updates or _nothing(engine, solving.rank)  # where every step went astray
    return Taken(updates, tuple(seen), read, time.monotonic() - started)


def _nothing(engine: Engine, rank: int) -> dict[str, Update]:
    return {
        place: Update(torch.zeros(len(at.rows), rank), torch.zeros(rank, at.inputs))
        for place, at in places(engine).items()
        if at.expert is None
    }


@dataclass(eq=False)
class _Matters:
    """How much changes of one matrix matter: second moments of what it reads [i, i], and of the
    gradient of what is said by what it returns [o, o]."""

    reads: Tensor
    returns: Tensor

    def change(self, slope: Tensor, damping: float, rank: int) -> tuple[Update, float]:
        """The best change of such a rank, by Newton's step, where the loss grows by `slope` [o, i],
        and how much it matters, in nats a token; it is cut where that costs least."""
        reads, returns = (_root(each, damping) for each in (self.reads, self.returns))
        whitened = torch.linalg.solve_triangular(returns, -slope, upper=False)
        whitened = torch.linalg.solve_triangular(reads, whitened.mT, upper=False).mT
        with torch.random.fork_rng():
            torch.manual_seed(0)
            u, sizes, v = torch.svd_lowrank(whitened, min(rank + _SPARE, *slope.shape), niter=3)
        up = torch.linalg.solve_triangular(returns.mT, u[:, :rank] * sizes[:rank], upper=True)
        down = torch.linalg.solve_triangular(reads.mT, v[:, :rank], upper=True).mT
        matters = float(sizes[:rank].square().sum()) / 2
        return Update(up.contiguous(), down.contiguous()), matters


def _root(moments: Tensor, damping: float) -> Tensor:
    """The lower triangular root of damped second moments [d, d]."""
    mean = moments.diagonal().mean().clamp_min(torch.finfo().tiny)
    return torch.linalg.cholesky(moments + damping**0.5 * mean * torch.eye(len(moments)).to(mean))


def _best_step(
    course: Relearning,
    here: Mapping[str, Update],
    loss: float,
    matters: Mapping[str, _Matters],
    slopes: Mapping[str, Tensor],
    solving: Solving,
) -> tuple[dict[str, Update], float]:
    """Where the held-out loss is least of all lengths; where it was, if nowhere less than that."""
    best, start = dict(here), loss
    step = {
        place: matters[place].change(of, solving.damping, solving.rank)
        for place, of in slopes.items()
    }
    whole = sum(length for _, length in step.values()) or math.inf  # nothing is to be changed
    for length in paced(solving.lengths):
        strength = math.sqrt(length / whole)
        tried = {
            place: Update.total([*([here[place]] if here else []), each.scaled(strength)]).rounded(
                solving.rank
            )
            for place, (each, _) in step.items()
        }
        found = course.look(tried)
        if found < loss:
            best, loss = tried, found
        if found > _ASTRAY * start:
            break
    return best, loss


def _matters(
    engine: Engine, texts: Sequence[Example], here: Mapping[str, Update], drawn: torch.Generator
) -> tuple[dict[str, _Matters], int]:
    """By place, of what the model itself would say after each token, drawn by chance; and how many
    tokens were read."""
    reads: dict[str, Tensor] = {}  # of what several places read once
    returns: dict[str, Tensor] = {}
    seen: set[str] = set()
    judged, count = torch.empty(0), 0

    def take(place: str, read: Tensor, gradient: Tensor) -> None:
        side, _ = sides(place)
        if side not in seen:
            seen.add(side)
            _add(reads, side, read.reshape(*judged.shape, -1)[judged].float())
        _add(returns, place, gradient.reshape(*judged.shape, -1)[judged].float())

    with torch.enable_grad(), adapting(engine, here), _going_back(engine, take):
        for some in passes(engine, texts):
            judged = some.judged.roll(-1, 1)  # where what is judged is said
            seen.clear()
            states = engine.states(some.ids)
            said = engine.logits(states[judged]).log_softmax(-1)
            (-said.gather(-1, _guessed(said.detach(), drawn)).sum()).backward()
            count += int(judged.sum())
    for each in (reads, returns):
        for moments in each.values():
            moments /= count
    found = {place: _Matters(reads[sides(place)[0]], of) for place, of in returns.items()}
    return found, count


def _guessed(said: Tensor, drawn: torch.Generator) -> Tensor:
    """One token of each row of log-chances [n, v], by chance, [n, 1]; for many tokens this is
    faster than `multinomial`."""
    sums = said.exp().cumsum(-1)
    at = torch.rand(len(said), 1, generator=drawn, device=said.device) * sums[:, -1:]
    return torch.searchsorted(sums, at).clamp_max(said.shape[-1] - 1)


def _add(to: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """To second moments by name those of rows [n, d]."""
    some = rows.mT @ rows
    to[name] = to[name] + some if name in to else some


def falls(
    engine: Engine, course: Relearning, here: Mapping[str, Update]
) -> tuple[dict[str, Tensor], int]:
    """By place, the gradient of the loss by its matrix [o, i]; and how many tokens were read."""
    found: dict[str, Tensor] = {}

    def take(place: str, reads: Tensor, gradient: Tensor) -> None:
        some = gradient.flatten(0, -2).float().mT @ reads.flatten(0, -2).float()
        found[place] = found[place] + some if place in found else some

    with torch.enable_grad(), _going_back(engine, take):
        read = course.step(range(course.count), here)
    return found, read


@contextmanager
def _going_back(engine: Engine, take: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """In every pass back inside, hand over what each place has read [.., i], and the gradient by
    what it returned [.., o]."""
    by_module: dict[str, list[tuple[str, Rows]]] = defaultdict(list)
    for place, at in places(engine).items():
        if at.expert is None:
            by_module[at.module].append((place, at))

    def hook(
        some: Sequence[tuple[str, Rows]],
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def watch(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            reads = args[0].detach()
            if not output.requires_grad:  # nothing before it has a gradient
                output.requires_grad_()

            def back(gradient: Tensor) -> None:
                for place, at in some:
                    take(place, reads, gradient[..., at.rows.to(gradient.device)])

            output.register_hook(back)
            return output

        return watch

    with ExitStack() as hooks:
        for module, some in by_module.items():
            layer = engine.model.get_submodule(module)
            hooks.callback(layer.register_forward_hook(hook(some)).remove)
        yield
