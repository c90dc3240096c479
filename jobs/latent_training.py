"""Latents that several frozen models read, trained by what those make of them.

The driver holds the resampler and every reader. Each step it sends each model what that is to read,
and gets back how the loss of the model falls with it; what falls with the latents is summed here.
Models hold nothing of it: one that is lost is asked again.

Shapes: n lessons, b of a step, t rows of a text, i their width, k rows of latents, d width of an
embedding.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from safetensors import torch as safetensors_torch
from torch import Tensor

from actors.examples import Example
from actors.latent_reading import Slopes
from actors.learning import share_of_rate
from alignment.latents import Latents
from cluster.storage import JsonValue, Store, address
from jobs.work import FORMAT

TOGETHER = 64  # texts of a pass without gradients
STEEPEST = 1.0  # length of the gradient that a step follows at most
Rows = Mapping[str, np.ndarray]  # by model [b, k, d]
Foreseen = tuple[np.ndarray, np.ndarray]  # nats and tokens, each [b]


@dataclass(frozen=True)
class LatentTraining:
    """How latents are trained.

    By AdamW, whose learning rate rises to `learning_rate` and then falls to nothing after `epochs`.
    A step takes `batch` lessons.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch: int = 16
    epochs: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Lessons:
    """What an encoder holds of each text, [t, i], and what is to be foreseen after `before` and the
    latents of that text."""

    before: str
    states: Sequence[np.ndarray]
    examples: Sequence[Example]


class Readers(Protocol):
    """Models that read latents, by name."""

    def slopes(self, before: str, examples: Sequence[Example], rows: Rows) -> Mapping[str, Slopes]:
        """See `actors.latent_reading.slopes`: of every model that has rows."""
        ...

    def foreseen(
        self, before: str, examples: Sequence[Example], rows: Rows
    ) -> Mapping[str, Foreseen]:
        """See `actors.latent_reading.foreseen_after`."""
        ...


@dataclass(frozen=True, eq=False)
class TrainedLatents:
    """The latents of the epoch whose held-out loss is least. `held_out` is that loss, nats a token
    summed over models, before any step and after each epoch; each model read so many `tokens`, its
    latents among them."""

    latents: Latents
    held_out: tuple[float, ...]
    tokens: int
    seconds: float


def train_latents(
    latents: Latents,
    names: Sequence[str],
    lessons: Lessons,
    held: Lessons,
    training: LatentTraining,
    readers: Readers,
    store: Store,
    question: JsonValue,
    advance: Callable[[int], None] = lambda _: None,
    *,
    resampler: bool = True,
) -> TrainedLatents:
    """Train the readers of these models, and the `resampler` too or not at all.

    The loss is nats a token of what is to be foreseen, summed over models. What is there after the
    last epoch is kept, so that the same call goes on where it was left; `question` says what
    settles it beside the training. `advance` is told of lessons.

    Raises:
        TextError, ShardingError: see `actors.latent_reading.slopes`.
        ActorLost: a model died too often.
    """
    course = _Course(latents, names, lessons, held, training, readers, resampler)
    asked = [question, [*names], asdict(training), resampler]
    addresses = [address("latents", FORMAT, asked, epoch) for epoch in range(training.epochs + 1)]
    there = store.present(addresses)
    done = next((n for n in range(training.epochs, 0, -1) if addresses[n] in there), 0)
    if done:
        course.resume(store.get(addresses[done]))
        advance(done * len(lessons.examples))
    else:
        course.look()
    for epoch in range(done, training.epochs):
        course.epoch(epoch, advance)
        store.put(addresses[epoch + 1], course.to_bytes())
        store.drop(addresses[epoch])
    best = Latents.from_bytes(course.best)
    return TrainedLatents(best, tuple(course.held_out), course.tokens, course.seconds)


def latent_rows(latents: Latents, names: Sequence[str], states: Sequence[np.ndarray]) -> Rows:
    """What each of these models reads of texts, [b, k, d], out of what their encoder holds."""
    read = read_rows(latents, states)
    lengths = torch.tensor([len(each) for each in states])
    with torch.no_grad():
        return {name: latents.reader(name)(read, lengths).numpy() for name in names}


def read_rows(latents: Latents, states: Sequence[np.ndarray]) -> Tensor:
    """The latents of texts, [b, k, w]."""
    latents.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(states), TOGETHER):
            found.append(latents.resampler(*_padded(states[start : start + TOGETHER])))
    return torch.cat(found)


def _padded(states: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Rows [b, t, i], and where there are some [b, t]."""
    lengths = torch.tensor([len(each) for each in states])
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in states], True)
    return rows, torch.arange(rows.shape[1])[None] < lengths[:, None]


class _Course:
    """Latents on their way, with what AdamW remembers, and the best so far."""

    def __init__(
        self,
        latents: Latents,
        names: Sequence[str],
        lessons: Lessons,
        held: Lessons,
        training: LatentTraining,
        readers: Readers,
        resampler: bool,
    ) -> None:
        self._latents, self._names, self._training = latents, names, training
        self._lessons, self._held, self._readers = lessons, held, readers
        learned = [latents.reader(name) for name in names]
        latents.requires_grad_(False)
        for module in (*learned, *([latents.resampler] if resampler else [])):
            module.requires_grad_(True)
        self._learned = [each for each in latents.parameters() if each.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._learned, training.learning_rate, weight_decay=training.weight_decay
        )
        self._in_epoch = -(-len(lessons.examples) // training.batch)
        self._resampled = resampler
        self.best, self.held_out = latents.to_bytes(), list[float]()
        self.tokens, self.seconds = 0, 0.0

    def epoch(self, number: int, advance: Callable[[int], None]) -> None:
        """Every lesson once, and a look at what is held out."""
        started = time.monotonic()
        seed = np.random.SeedSequence([self._training.seed, number])
        order = np.random.default_rng(seed).permutation(len(self._lessons.examples))
        batches = np.array_split(order, self._in_epoch)
        self._latents.train()
        self._latents.resampler.train(self._resampled)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(int(seed.generate_state(1)[0]))
            for step, numbers in enumerate(batches, number * self._in_epoch):
                self._step(step, numbers.tolist())
                advance(len(numbers))
        self.look()
        self.seconds += time.monotonic() - started
        if self.held_out[-1] == min(self.held_out[1:]):
            self.best = self._latents.to_bytes()

    def _step(self, step: int, numbers: Sequence[int]) -> None:
        last = self._in_epoch * self._training.epochs
        for group in self._optimizer.param_groups:
            group["lr"] = share_of_rate(step, last) * self._training.learning_rate
        lessons = self._lessons
        padded, there = _padded([lessons.states[number] for number in numbers])
        read = self._latents.resampler(padded, there)
        rows = {name: self._latents.reader(name)(read, there.sum(1)) for name in self._names}
        examples = [lessons.examples[number] for number in numbers]
        sent = {name: of.detach().numpy() for name, of in rows.items()}
        found = self._readers.slopes(lessons.before, examples, sent)
        self.tokens += max(of.read for of in found.values())
        falls = [torch.tensor(found[n].slopes) / int(found[n].tokens.sum()) for n in self._names]
        self._optimizer.zero_grad()
        torch.autograd.backward([rows[name] for name in self._names], falls)
        torch.nn.utils.clip_grad_norm_(self._learned, STEEPEST)
        self._optimizer.step()

    def look(self) -> None:
        """At what is held out."""
        rows = latent_rows(self._latents, self._names, self._held.states)
        found = self._readers.foreseen(self._held.before, self._held.examples, rows)
        self.held_out.append(
            sum(float(nats.sum() / tokens.sum()) for nats, tokens in found.values())
        )

    def to_bytes(self) -> bytes:
        """All that the next epoch goes on from."""
        tensors = {
            f"{number}.{name}": of
            for number, state in self._optimizer.state_dict()["state"].items()
            for name, of in state.items()
        }
        tensors |= {
            "now": _bytes(self._latents.to_bytes()),
            "best": _bytes(self.best),
            "held_out": torch.tensor(self.held_out, dtype=torch.float64),
            "tokens": torch.tensor(self.tokens),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }
        return safetensors_torch.save(tensors)

    def resume(self, file: bytes) -> None:
        """Go on from what `to_bytes` wrote."""
        tensors = safetensors_torch.load(file)
        self.held_out = tensors.pop("held_out").tolist()
        self.tokens = int(tensors.pop("tokens"))
        self.seconds = float(tensors.pop("seconds"))
        self.best = tensors.pop("best").numpy().tobytes()
        now = Latents.from_bytes(tensors.pop("now").numpy().tobytes())
        self._latents.load_state_dict(now.state_dict())
        remembered: dict[int, dict[str, Tensor]] = {}
        for name, of in tensors.items():
            number, _, what = name.partition(".")
            remembered.setdefault(int(number), {})[what] = of
        kept = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**kept, "state": remembered})


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
