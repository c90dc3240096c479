"""Questions to live models, each asked once: the answer is kept at the address of the question."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from safetensors import numpy as safetensors_numpy

from actors.catalog import ModelFacts
from actors.pool import Live
from cluster.gang import Ref
from cluster.storage import Store, address
from cluster.stream import stream
from jobs.attempts import persist
from jobs.progress import Reporter
from jobs.waves import Crew
from jobs.work import FORMAT

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Unit:
    """A call to a model, what is kept of its answer, and where.

    `question` is JSON that settles the answer together with the model and the method.
    """

    model: ModelFacts
    method: str
    args: tuple[Any, ...]
    question: Any
    keep: Callable[[Any], Arrays] = lambda answer: {"answer": answer}

    @property
    def to(self) -> str:
        """The address of the answer."""
        return address("unit", FORMAT, self.model.fingerprint, self.method, self.question)


@dataclass(frozen=True, eq=False)
class Asking:
    """Who is asked, where answers are, and who is told."""

    crew: Crew
    store: Store
    in_flight: int
    restarts: int
    reporter: Reporter

    def complete(self, name: str, units: Sequence[Unit]) -> list[Arrays]:
        """Ask what has not been asked yet, and return every answer in the order of the units.

        Only models that something is still asked of are loaded; they are of one wave. Raises
        ActorLost when a host died `restarts` times and once more.
        """
        by_address = {unit.to: unit for unit in units}

        def undone() -> list[Unit]:
            there = self.store.present(by_address)
            return [unit for to, unit in by_address.items() if to not in there]

        waiting = undone()
        self.crew.live(_models(waiting))
        total = len(by_address)
        with self.reporter.stage(name, total, total - len(waiting)) as stage:

            def attempt(units: list[Unit]) -> None:
                hosts = self.crew.live(_models(units))
                in_flight = max(self.in_flight, 2 * len(hosts))

                def submit(unit: Unit) -> Ref:
                    return hosts[unit.model.name].host.submit(unit.method, *unit.args)

                before, done = _paces(hosts), stage.done

                def look() -> None:
                    now = _paces(hosts)
                    stage.reach(
                        done + sum(now[name] - before[name] for name in now if name in before)
                    )

                asked = stream(_taking_turns(units), submit, in_flight, look)
                with closing(asked) as answers:
                    for unit, answer in answers:
                        self.store.put(unit.to, safetensors_numpy.save(unit.keep(answer)))
                        stage.advance()

            if waiting:
                persist(waiting, attempt, undone, self.restarts, [self.crew], self._lost)
        return [safetensors_numpy.load(self.store.get(unit.to)) for unit in units]

    def by_waves(self, name: str, units: Sequence[Unit]) -> list[Arrays]:
        """The answers to units of models that need not be of one wave, in their order."""
        answers: dict[str, Arrays] = {}
        for wave in self.crew.waves:
            some = [unit for unit in units if unit.model.name in wave]
            if some:
                found = self.complete(name, some)
                answers |= {unit.to: answer for unit, answer in zip(some, found, strict=True)}
        return [answers[unit.to] for unit in units]

    def one(self, name: str, unit: Unit) -> Arrays:
        """The answer to one unit."""
        (answer,) = self.by_waves(name, [unit])
        return answer

    def _lost(self) -> None:
        self.reporter.note("a model was lost; what it has not answered is asked again")


def _paces(hosts: Mapping[str, Live]) -> dict[str, float]:
    """How many calls each has answered, and what share of the next; of those who say."""
    paces = {name: live.host.pace() for name, live in hosts.items()}
    return {name: pace for name, pace in paces.items() if pace is not None}


def _models(units: Iterable[Unit]) -> list[str]:
    return list(dict.fromkeys(unit.model.name for unit in units))


def _taking_turns(units: Iterable[Unit]) -> list[Unit]:
    """One unit of each model in turn, so that every model is busy."""
    by_model: dict[str, list[Unit]] = {}
    for unit in units:
        by_model.setdefault(unit.model.name, []).append(unit)
    rounds = chain.from_iterable(zip_longest(*by_model.values()))
    return [unit for unit in rounds if unit is not None]


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array, with its type and shape: what stands for it in a question."""
    shaped = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(shaped + np.ascontiguousarray(array).tobytes()).hexdigest()


def texts_to_array(texts: list[str]) -> np.ndarray:
    """A list of texts as the bytes of its JSON, to be kept beside arrays."""
    return np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8).copy()


def array_to_texts(array: np.ndarray) -> list[str]:
    """What `texts_to_array` was given."""
    return json.loads(array.tobytes())
