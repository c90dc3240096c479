"""Fits maps where they have not been fitted yet, shared out over the folders."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.folder import FitOrder
from cluster.gang import Gang, Ref
from cluster.storage import Store
from cluster.stream import stream
from jobs.plan import outputs
from jobs.progress import Reporter


@dataclass(frozen=True, eq=False)
class Fitting:
    """Where moments are, who fits maps to them, and who is told."""

    store: Store
    folders: Sequence[Gang]
    reporter: Reporter

    def complete(self, name: str, orders: Sequence[FitOrder]) -> None:
        """Carry out every order whose maps are not there."""
        waiting = [o for o in orders if not all(self.store.has(to) for to in outputs(o))]
        with self.reporter.stage(name, len(orders), len(orders) - len(waiting)) as stage:

            def submit(numbered: tuple[int, FitOrder]) -> Ref:
                number, order = numbered
                return self.folders[number % len(self.folders)].submit("fit", order)

            for _ in stream(enumerate(waiting), submit, 2 * len(self.folders)):
                stage.advance()
