"""Fits maps where they have not been fitted yet, shared out over the folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from actors.folder import FitOrder
from cluster.gang import Gang, Ref
from cluster.storage import Store
from cluster.stream import stream
from jobs.attempts import persist
from jobs.progress import Reporter
from jobs.work import outputs


@dataclass(frozen=True, eq=False)
class Fitting:
    """Where moments are, who fits maps to them, and who is told."""

    store: Store
    folders: Sequence[Gang]
    restarts: int
    reporter: Reporter

    def complete(self, name: str, orders: Sequence[FitOrder]) -> None:
        """Carry out every order whose maps are not there; again where a folder dies at it.

        Raises ActorLost when one died `restarts` times and once more.
        """
        todo = self._open(orders)
        with self.reporter.stage(name, len(orders), len(orders) - len(todo)) as stage:

            def attempt(todo: Sequence[FitOrder]) -> None:
                for _ in stream(enumerate(todo), self._submit, self._in_flight):
                    stage.advance()

            undone = partial(self._open, orders)
            persist(todo, attempt, undone, self.restarts, self.folders, self._lost)

    def _lost(self) -> None:
        self.reporter.note("a worker was lost; its maps are fitted again")

    def _open(self, orders: Sequence[FitOrder]) -> list[FitOrder]:
        there = self.store.present({to for order in orders for to in outputs(order)})
        return [order for order in orders if not there.issuperset(outputs(order))]

    @property
    def _in_flight(self) -> int:
        return 2 * len(self.folders)

    def _submit(self, numbered: tuple[int, FitOrder]) -> Ref:
        number, order = numbered
        return self.folders[number % len(self.folders)].submit("fit", order)
