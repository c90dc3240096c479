"""Live models that read latents, all at once, each in its own host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.examples import Example
from actors.latent_reading import Slopes
from cluster.gang import fetch
from jobs.attempts import persist
from jobs.latent_training import Foreseen, Rows
from jobs.waves import Crew


@dataclass(frozen=True, eq=False)
class LiveReaders:
    """Models of one wave; one that is lost is asked again, `restarts` times."""

    crew: Crew
    restarts: int
    lost: Callable[[], None]

    def slopes(self, before: str, examples: Sequence[Example], rows: Rows) -> Mapping[str, Slopes]:
        """See `jobs.latent_training.Readers`. Raises ActorLost when one died too often."""
        return self._asked("latent_slopes", before, examples, rows)

    def foreseen(
        self, before: str, examples: Sequence[Example], rows: Rows
    ) -> Mapping[str, Foreseen]:
        """See `jobs.latent_training.Readers`. Raises ActorLost when one died too often."""
        return self._asked("foreseen_after", before, examples, rows)

    def _asked(
        self, method: str, before: str, examples: Sequence[Example], rows: Rows
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def attempt(names: list[str]) -> None:
            hosts = self.crew.live(names)
            refs = [hosts[n].host.submit(method, before, examples, rows[n]) for n in names]
            found.update(zip(names, fetch(refs), strict=True))

        persist([*rows], attempt, lambda: [*rows], self.restarts, [self.crew], self.lost)
        return found
