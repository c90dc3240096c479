"""What a sweep asks of every cargo."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.cargos import AnyCell
from evaluation.cells import Key
from jobs.config import RunFile
from jobs.extract import Vectors
from jobs.fitting import Fitting
from jobs.paths import Routed, Saving
from jobs.texts import Texts
from jobs.units import Asking
from jobs.waves import Crew
from jobs.work import Work
from jobs.workload import Reading


@dataclass(frozen=True, eq=False)
class Going:
    """A sweep that is under way: what is asked for, what has been read of anchors, and the models
    that can be asked."""

    run: RunFile
    texts: Texts
    work: Work
    vectors: Vectors
    asking: Asking
    fitting: Fitting


@dataclass(frozen=True, eq=False)
class Came:
    """What came of a cargo: its cells; what fills a directory with what is registered of each; and
    the ways through other models that were measured."""

    cells: Sequence[AnyCell]
    files: Mapping[Key, Saving]
    routes: Sequence[Routed] = ()


class Cargo(ABC):
    """One kind of thing that goes between models. It is asked where a run has its section.

    One that `fits_sites` is carried first: those who fold activations are let go after it.
    """

    fits_sites = False

    def ready(self, run: RunFile) -> None:  # noqa: B027
        """Make sure, before anything is loaded, that a run can be judged as it asks."""

    def require(self, run: RunFile, crew: Crew) -> None:  # noqa: B027
        """Make sure that models can be loaded together which have to be."""

    @abstractmethod
    def carry(self, going: Going) -> Came:
        """Carry it over every ordered pair, and judge what arrives.

        Raises:
            ActorLost: a process died too often.
        """

    @abstractmethod
    def readings(self, run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
        """What one model reads for it in a run with so many other models, each of which is its
        source once: counted before anything is loaded."""
